import sys

sys.path.insert(0, "tests/benchmarks")
import time, numpy as np
from story_tables import *

for n, f in TABLES.items():
    t0 = time.time()
    t = f()
    print(n, time.time() - t0, t.pool.shape, t.pool.isna().mean().round(3).to_dict(), t.pool.dtypes.to_dict())
    d = t.days(np.random.default_rng(0))
    print(d.groupby("day").size().describe())
    print(t.pool[t.target].value_counts(normalize=True).head(3))
