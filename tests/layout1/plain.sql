BEGIN TRANSACTION;
CREATE TABLE champion (
	id INTEGER NOT NULL, 
	version INTEGER, 
	predecessor INTEGER, 
	generation INTEGER NOT NULL, 
	frozen BOOLEAN NOT NULL, 
	hold TEXT NOT NULL, 
	head TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(version) REFERENCES versions (number), 
	FOREIGN KEY(predecessor) REFERENCES versions (number)
);
INSERT INTO "champion" VALUES(1,1,NULL,3,0,'','2eed3a429ff629a06b18e206fccb67ede65abbf0dae203ef76f72b8789535826');
CREATE TABLE events (
	number INTEGER NOT NULL, 
	version INTEGER, 
	generation INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "events" VALUES(1,1,0,'register','train-1','prodkit','','{"artifact":"726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514","manifest":"6797b5e5d363073bfd43344b06092a884a40826739a6f9265fdee5274dfc51d2"}','c517b3811bb81c6b84ccfc49b520e79dc1eddd76a7476030ba11d8fdf3aade12','','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(2,2,0,'register','train-2','prodkit','','{"artifact":"a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd","manifest":"6797b5e5d363073bfd43344b06092a884a40826739a6f9265fdee5274dfc51d2"}','5a01743c2fad0cd9f5282ff002ba16ff89d007b135ff6c02f1a1b91647c1ab49','c517b3811bb81c6b84ccfc49b520e79dc1eddd76a7476030ba11d8fdf3aade12','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(3,1,1,'promote','validate-1','prodkit','the first','{"predecessor":null}','0d145fb4c97043b59f2ad5b1d9625f993a409dd457f0077f7dc6315fd66e01bf','5a01743c2fad0cd9f5282ff002ba16ff89d007b135ff6c02f1a1b91647c1ab49','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(4,2,2,'promote','validate-2','prodkit','better','{"predecessor":1}','f68be2a6877165bb16ad7a6dca34953da521a63db75b442a7451b5e79571f9ac','0d145fb4c97043b59f2ad5b1d9625f993a409dd457f0077f7dc6315fd66e01bf','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(5,2,2,'hold','','prodkit','price is empty','{}','4c4e0ce81f92e6de0679d3ef566d7fe8bad132ae5ff7b16d4e0063634266ff61','f68be2a6877165bb16ad7a6dca34953da521a63db75b442a7451b5e79571f9ac','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(6,2,2,'release','','prodkit','sound again','{}','eee1aa0d2098373a75c8e1af6916402cc0764f3197b92ecfac2eedcfd6049595','4c4e0ce81f92e6de0679d3ef566d7fe8bad132ae5ff7b16d4e0063634266ff61','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(7,1,3,'rollback','','prodkit','worse','{"from":2,"predecessor":null}','0ff8a876f8654ca86549353c92c07103ac7db65ae42df0fa5da831fcc9687e9b','eee1aa0d2098373a75c8e1af6916402cc0764f3197b92ecfac2eedcfd6049595','2026-11-30T19:54:37+00:00');
INSERT INTO "events" VALUES(8,2,3,'quarantine','','prodkit','worse','{}','2eed3a429ff629a06b18e206fccb67ede65abbf0dae203ef76f72b8789535826','0ff8a876f8654ca86549353c92c07103ac7db65ae42df0fa5da831fcc9687e9b','2026-11-30T19:54:37+00:00');
CREATE TABLE layout (
	id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "layout" VALUES(1,1);
CREATE TABLE metrics (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id TEXT NOT NULL, 
	version INTEGER, 
	notebook TEXT NOT NULL, 
	window_start TEXT NOT NULL, 
	window_end TEXT NOT NULL, 
	name TEXT NOT NULL, 
	known_at TEXT NOT NULL, 
	value DOUBLE, 
	low DOUBLE, 
	high DOUBLE, 
	n BIGINT
);
INSERT INTO "metrics" VALUES(1,'score-1',1,'score','2013-04-01T00:00:00','2013-05-01T00:00:00','latency','2013-05-01T00:00:00',1.0,NULL,NULL,10);
CREATE TABLE profiles (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	window_start TEXT NOT NULL, 
	window_end TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	document TEXT NOT NULL, 
	version INTEGER, 
	clean BOOLEAN NOT NULL
);
INSERT INTO "profiles" VALUES(1,'2013-04-01T00:00:00','2013-05-01T00:00:00','score-1','{"rows":10}',1,1);
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	notebook TEXT, 
	status TEXT, 
	outcome TEXT, 
	action TEXT, 
	approval TEXT, 
	started TEXT, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (run_id)
);
INSERT INTO "runs" VALUES(1,'score-1','score','succeeded',NULL,NULL,NULL,NULL,'{"run_id":"score-1","notebook":"score","status":"succeeded"}');
CREATE TABLE versions (
	number INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	location TEXT NOT NULL, 
	manifest TEXT NOT NULL, 
	signature TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	quarantined BOOLEAN NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (digest, run_id)
);
INSERT INTO "versions" VALUES(1,'726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514','versions/726ca901a6141e040fee289c8cd48eedf8bd515dc06bed8e691637fb39261514.joblib','{"task":"binary"}','','train-1',9,0);
INSERT INTO "versions" VALUES(2,'a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd','versions/a594df43dbfa60e031497cb1cff09d65f29289ee7af4c6e896a82d064f30f8cd.joblib','{"task":"binary"}','','train-2',9,1);
CREATE INDEX ix_metrics_run_id ON metrics (run_id);
CREATE TRIGGER events_insert BEFORE INSERT ON events WHEN NEW.number <> 1 + (SELECT COALESCE(MAX(number), 0) FROM events) OR NEW.previous <> COALESCE((SELECT digest FROM events ORDER BY number DESC LIMIT 1), '') BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
CREATE TRIGGER events_update BEFORE UPDATE ON events WHEN TRUE BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
CREATE TRIGGER events_delete BEFORE DELETE ON events WHEN TRUE BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('metrics',1);
INSERT INTO "sqlite_sequence" VALUES('profiles',1);
COMMIT;
