"""Tabular scikit-learn models from experiment to production, without leaving notebooks."""

import sys
from importlib import import_module
from opcode import opmap
from typing import Any

# Where each public name lives. A name is imported when it is first asked for, so that `import prodkit` costs
# nothing and a process that only compares profiles never loads scikit-learn.
_HOMES = {
    "charts": [
        "draw_calibration",
        "draw_daily",
        "draw_differences",
        "draw_drift",
        "draw_folds",
        "draw_importance",
        "draw_learning_curve",
        "draw_rising_load",
        "draw_scores",
        "draw_staleness",
        "draw_volume_cost",
    ],
    "explore": [
        "explore_columns",
        "explore_limits",
        "explore_loads",
        "explore_signs",
        "explore_training",
        "explore_trial",
    ],
    "decisions.actions": ["carry_out"],
    "monitoring.alerts": ["alert_table", "ranked_alerts", "send_alerts"],
    "models.bundle": ["assemble", "manifest", "pack", "window_estimate"],
    "decisions.concept": ["wider_drift"],
    "decisions.contest": ["challenge", "contest_evidence", "slice_table"],
    "decisions.counterfactual": ["counterfactuals", "served_figures"],
    "data.windows": ["feature_columns", "label_coverage", "read_window"],
    "decisions.damage": ["damage_table"],
    "decisions.decide": ["judgement", "promotion"],
    "decisions.record": ["decision_record", "past_decisions"],
    "decisions.whatif": ["what_if"],
    "stress.trial": [
        "contenders",
        "fault_table",
        "foreseen",
        "load_budget",
        "load_guards",
        "load_table",
        "mix_table",
        "stress_evidence",
        "stress_guard",
        "stress_outputs",
        "stress_service",
        "volume_table",
    ],
    "drift.compare": ["jensen_shannon", "kolmogorov_smirnov", "psi"],
    "drift.tables": ["compare_tables", "profile_table"],
    "decisions.gains": ["remember_trial"],
    "decisions.gates": ["improvement"],
    "decisions.economy": ["Retraining", "chance_worse", "worth_retraining"],
    "decisions.refit": ["refit", "register_successor", "successor_evidence"],
    "decisions.probes": ["first_triangle"],
    "decisions.triangle": ["audit"],
    "decisions.ladder": ["gain_table", "knowledge_table", "ladder_evidence"],
    "models.metrics": ["calibration_curve"],
    "models.estimators": ["fit_model"],
    "monitoring.outcomes": ["demonstrate_past", "estimate_pending", "judge_drift", "judge_matured"],
    "params": [
        "DriftParams",
        "MonitorParams",
        "RollbackParams",
        "ScoreParams",
        "StressParams",
        "TrainParams",
        "ValidateParams",
    ],
    "decisions.result": [
        "bottom_line",
        "conclude",
        "current_run",
        "evidence_table",
        "finding",
        "rounded",
        "scores_table",
        "shown_in_full",
    ],
    "data.schema": ["Schema"],
    "decisions.sequential": ["loss_rise", "rise_path"],
    "evidence": ["Window"],
    "runs.opened": ["open_run"],
    "scoring.batch": ["open_window", "remember_scoring", "score_window", "scoring_evidence"],
    "scoring.inspection": ["inspect_chunks"],
    "decisions.soundness": ["left_out", "sound_rows"],
    "decisions.survey": [
        "drift_evidence",
        "drill_evidence",
        "drift_report",
        "drift_table",
        "inspect_window",
        "missing_table",
    ],
    "models.training": [
        "fit_recipe",
        "importance",
        "learning_curve",
        "model_for",
        "out_of_time",
        "search_arguments",
        "split_window",
    ],
    "monitoring.findings": ["draw_answers", "draw_quality", "monitor_evidence", "standing", "steady"],
    "monitoring.served": ["served_performance"],
    "monitoring.health": ["health_metrics"],
    "store.workspace": ["champion_of", "first_rows", "load_version", "open_store"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        caller = sys._getframe(1)
        if caller.f_code.co_code[caller.f_lasti] == opmap["IMPORT_FROM"]:
            mend = "the notebook is of another version: run `prodkit update` in its project"
            raise ImportError(f"prodkit has no {name}: {mend}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(
        "prodkit.settings"
    ).project_on_path()  # a notebook's next line may import the project's modules
    return getattr(import_module(f"prodkit.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
