BEGIN TRANSACTION;
CREATE TABLE automl_log (
	home TEXT NOT NULL, 
	study TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	schema INTEGER NOT NULL, 
	nonce TEXT NOT NULL, 
	events TEXT NOT NULL, 
	written_at TEXT NOT NULL, 
	PRIMARY KEY (home, study, version)
);
INSERT INTO "automl_log" VALUES('memory:','greens',0,1,'00000000000000000000000000000000','[{"at":"2026-11-30T01:02:03.456789Z","type":"run_opened","run":"a","deadline":"2026-11-30T01:02:03.456789Z","snapshot":"s","spec_hash":"h","generation_key":"k","spec":{"name":"greens"},"origin":"cli","space":null,"split":null}]','2026-01-01T01:00:00.000Z');
INSERT INTO "automl_log" VALUES('memory:','greens',1,1,'00000000000000000000000000000000','[{"at":"2026-11-30T01:02:03.456789Z","type":"trial_opened","n":0,"run":"a","worker":"automl_greens.scheduled__2026-11-30T01_00_00_00_00/1","device":{"type":"NVIDIA H200","memory_bytes":150000000000}}]','2026-01-01T01:00:00.000Z');
CREATE TABLE automl_records (
	home TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	data BLOB NOT NULL, 
	etag TEXT NOT NULL, 
	modified TEXT NOT NULL, 
	PRIMARY KEY (home, "key")
);
INSERT INTO "automl_records" VALUES('memory:','lease',X'7B22736368656D61223A312C226E616D65223A2237222C22686F6C646572223A226E696768742F30222C226E6F6E6365223A226633663366336633663366336633663366336633663366336633663366336633222C2274746C5F73223A3132302E302C2272656C6561736564223A747275657D','0a5c1b2ea1bdeaf057e6b0a4ebc6c0f2','2026-01-01T01:00:00.000Z');
CREATE TABLE automl_schema (
	id INTEGER NOT NULL CHECK (id = 1), 
	version INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "automl_schema" VALUES(1,1);
COMMIT;
