-- What administrators do to the queue, and delays that were reported.
ALTER TABLE delivery ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));
ALTER TABLE delivery ADD COLUMN tls_override TEXT NOT NULL DEFAULT '' CHECK (tls_override = '' OR json_valid(tls_override));
UPDATE delivery SET held = 1 WHERE state = 'held';
ALTER TABLE recipient ADD COLUMN status TEXT NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN delay_told INTEGER NOT NULL DEFAULT 0 CHECK (delay_told IN (0, 1));
CREATE TABLE hold_rule (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    filter  TEXT    NOT NULL CHECK (filter <> ''),
    reason  TEXT    NOT NULL,
    made_by TEXT    NOT NULL,
    made_at INTEGER NOT NULL
) STRICT;
