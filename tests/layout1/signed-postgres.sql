CREATE FUNCTION events_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN IF TRUE THEN RAISE EXCEPTION 'the history is append-only'; END IF; RETURN NULL; END $$;
CREATE FUNCTION events_insert() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN IF NEW.number <> 1 + (SELECT COALESCE(MAX(number), 0) FROM events) OR NEW.previous <> COALESCE((SELECT digest FROM events ORDER BY number DESC LIMIT 1), '') THEN RAISE EXCEPTION 'the history is append-only'; END IF; RETURN NEW; END $$;
CREATE FUNCTION events_truncate() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN IF TRUE THEN RAISE EXCEPTION 'the history is append-only'; END IF; RETURN NULL; END $$;
CREATE FUNCTION events_update() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN IF TRUE THEN RAISE EXCEPTION 'the history is append-only'; END IF; RETURN NULL; END $$;
CREATE TABLE champion (
    id integer NOT NULL,
    version integer,
    predecessor integer,
    generation integer NOT NULL,
    frozen boolean NOT NULL,
    hold text NOT NULL,
    head text NOT NULL
);
CREATE TABLE events (
    number integer NOT NULL,
    version integer,
    generation integer NOT NULL,
    kind text NOT NULL,
    run_id text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    digest text NOT NULL,
    previous text NOT NULL,
    created_at text NOT NULL
);
CREATE TABLE layout (
    id integer NOT NULL,
    number integer NOT NULL
);
CREATE TABLE metrics (
    id integer NOT NULL,
    run_id text NOT NULL,
    version integer,
    notebook text NOT NULL,
    window_start text NOT NULL,
    window_end text NOT NULL,
    name text NOT NULL,
    known_at text NOT NULL,
    value double precision,
    low double precision,
    high double precision,
    n bigint
);
CREATE SEQUENCE metrics_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE metrics_id_seq OWNED BY metrics.id;
CREATE TABLE profiles (
    id integer NOT NULL,
    window_start text NOT NULL,
    window_end text NOT NULL,
    run_id text NOT NULL,
    document text NOT NULL,
    version integer,
    clean boolean NOT NULL
);
CREATE SEQUENCE profiles_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE profiles_id_seq OWNED BY profiles.id;
CREATE TABLE runs (
    id integer NOT NULL,
    run_id text NOT NULL,
    notebook text,
    status text,
    outcome text,
    action text,
    approval text,
    started text,
    record text NOT NULL
);
CREATE SEQUENCE runs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE runs_id_seq OWNED BY runs.id;
CREATE TABLE versions (
    number integer NOT NULL,
    digest text NOT NULL,
    location text NOT NULL,
    manifest text NOT NULL,
    signature text NOT NULL,
    run_id text NOT NULL,
    size_bytes bigint NOT NULL,
    quarantined boolean NOT NULL
);
ALTER TABLE ONLY metrics ALTER COLUMN id SET DEFAULT nextval('metrics_id_seq'::regclass);
ALTER TABLE ONLY profiles ALTER COLUMN id SET DEFAULT nextval('profiles_id_seq'::regclass);
ALTER TABLE ONLY runs ALTER COLUMN id SET DEFAULT nextval('runs_id_seq'::regclass);
INSERT INTO champion VALUES (1, 1, NULL, 3, false, '', '2eed3a429ff629a06b18e206fccb67ede65abbf0dae203ef76f72b8789535826');
INSERT INTO events VALUES (1, 1, 0, 'register', 'train-1', 'prodkit', '', '{"artifact":"726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514","manifest":"6797b5e5d363073bfd43344b06092a884a40826739a6f9265fdee5274dfc51d2"}', 'c517b3811bb81c6b84ccfc49b520e79dc1eddd76a7476030ba11d8fdf3aade12', '', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (2, 2, 0, 'register', 'train-2', 'prodkit', '', '{"artifact":"a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd","manifest":"6797b5e5d363073bfd43344b06092a884a40826739a6f9265fdee5274dfc51d2"}', '5a01743c2fad0cd9f5282ff002ba16ff89d007b135ff6c02f1a1b91647c1ab49', 'c517b3811bb81c6b84ccfc49b520e79dc1eddd76a7476030ba11d8fdf3aade12', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (3, 1, 1, 'promote', 'validate-1', 'prodkit', 'the first', '{"predecessor":null}', '0d145fb4c97043b59f2ad5b1d9625f993a409dd457f0077f7dc6315fd66e01bf', '5a01743c2fad0cd9f5282ff002ba16ff89d007b135ff6c02f1a1b91647c1ab49', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (4, 2, 2, 'promote', 'validate-2', 'prodkit', 'better', '{"predecessor":1}', 'f68be2a6877165bb16ad7a6dca34953da521a63db75b442a7451b5e79571f9ac', '0d145fb4c97043b59f2ad5b1d9625f993a409dd457f0077f7dc6315fd66e01bf', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (5, 2, 2, 'hold', '', 'prodkit', 'price is empty', '{}', '4c4e0ce81f92e6de0679d3ef566d7fe8bad132ae5ff7b16d4e0063634266ff61', 'f68be2a6877165bb16ad7a6dca34953da521a63db75b442a7451b5e79571f9ac', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (6, 2, 2, 'release', '', 'prodkit', 'sound again', '{}', 'eee1aa0d2098373a75c8e1af6916402cc0764f3197b92ecfac2eedcfd6049595', '4c4e0ce81f92e6de0679d3ef566d7fe8bad132ae5ff7b16d4e0063634266ff61', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (7, 1, 3, 'rollback', '', 'prodkit', 'worse', '{"from":2,"predecessor":null}', '0ff8a876f8654ca86549353c92c07103ac7db65ae42df0fa5da831fcc9687e9b', 'eee1aa0d2098373a75c8e1af6916402cc0764f3197b92ecfac2eedcfd6049595', '2026-11-30T19:54:55+00:00');
INSERT INTO events VALUES (8, 2, 3, 'quarantine', '', 'prodkit', 'worse', '{}', '2eed3a429ff629a06b18e206fccb67ede65abbf0dae203ef76f72b8789535826', '0ff8a876f8654ca86549353c92c07103ac7db65ae42df0fa5da831fcc9687e9b', '2026-11-30T19:54:55+00:00');
INSERT INTO layout VALUES (1, 1);
INSERT INTO metrics VALUES (1, 'score-1', 1, 'score', '2013-04-01T00:00:00', '2013-05-01T00:00:00', 'latency', '2013-05-01T00:00:00', 1, NULL, NULL, 10);
INSERT INTO profiles VALUES (1, '2013-04-01T00:00:00', '2013-05-01T00:00:00', 'score-1', '{"rows":10}', 1, true);
INSERT INTO runs VALUES (1, 'score-1', 'score', 'succeeded', NULL, NULL, NULL, NULL, '{"run_id":"score-1","notebook":"score","status":"succeeded"}');
INSERT INTO versions VALUES (1, '726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514', 'versions/726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514.joblib', '{"task":"binary"}', '78ee01a9067b9431f03332a1f2a58e888de7236740f4a9401f7eb42f19c43154', 'train-1', 9, false);
INSERT INTO versions VALUES (2, 'a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd', 'versions/a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd.joblib', '{"task":"binary"}', '9ce91a2dab596b1c4173c53ee9261dca88feac265067c8a4fc5507ba73ab08db', 'train-2', 9, true);
SELECT pg_catalog.setval('metrics_id_seq', 1, true);
SELECT pg_catalog.setval('profiles_id_seq', 1, true);
SELECT pg_catalog.setval('runs_id_seq', 1, true);
ALTER TABLE ONLY champion
    ADD CONSTRAINT champion_pkey PRIMARY KEY (id);
ALTER TABLE ONLY events
    ADD CONSTRAINT events_pkey PRIMARY KEY (number);
ALTER TABLE ONLY layout
    ADD CONSTRAINT layout_pkey PRIMARY KEY (id);
ALTER TABLE ONLY metrics
    ADD CONSTRAINT metrics_pkey PRIMARY KEY (id);
ALTER TABLE ONLY profiles
    ADD CONSTRAINT profiles_pkey PRIMARY KEY (id);
ALTER TABLE ONLY runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY runs
    ADD CONSTRAINT runs_run_id_key UNIQUE (run_id);
ALTER TABLE ONLY versions
    ADD CONSTRAINT versions_digest_run_id_key UNIQUE (digest, run_id);
ALTER TABLE ONLY versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (number);
CREATE INDEX ix_metrics_run_id ON metrics USING btree (run_id);
CREATE TRIGGER events_delete BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION events_delete();
CREATE TRIGGER events_insert BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION events_insert();
CREATE TRIGGER events_truncate BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION events_truncate();
CREATE TRIGGER events_update BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION events_update();
ALTER TABLE ONLY champion
    ADD CONSTRAINT champion_predecessor_fkey FOREIGN KEY (predecessor) REFERENCES versions(number);
ALTER TABLE ONLY champion
    ADD CONSTRAINT champion_version_fkey FOREIGN KEY (version) REFERENCES versions(number);
