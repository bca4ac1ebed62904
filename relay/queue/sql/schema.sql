-- The queue of one relay, SQLite. This is the whole schema of the version that migrate.py names; migrations/ leads older
-- files to it (tests/unit/queue/test_sqlite.py holds the two in step). Times are microseconds since the epoch, UTC.

CREATE TABLE message (
    id          INTEGER PRIMARY KEY,
    queue_id    TEXT    NOT NULL UNIQUE CHECK (length(queue_id) BETWEEN 1 AND 64 AND queue_id NOT GLOB '*[^0-9A-Za-z]*'),
    sender      TEXT    NOT NULL,                               -- empty: the null sender
    domain      TEXT    NOT NULL CHECK ((domain = '') = (sender = '')),
    arrived_at  INTEGER NOT NULL,
    size        INTEGER NOT NULL CHECK (size >= 0),
    eight_bit   INTEGER NOT NULL CHECK (eight_bit IN (0, 1)),
    body_type   TEXT    NOT NULL CHECK (body_type IN ('7BIT', '8BITMIME')),
    smtputf8    INTEGER NOT NULL CHECK (smtputf8 IN (0, 1)),
    ret         TEXT    NOT NULL CHECK (ret IN ('', 'FULL', 'HDRS')),
    envid       TEXT    NOT NULL,
    requiretls  INTEGER NOT NULL CHECK (requiretls IN (0, 1)),
    client      TEXT    NOT NULL CHECK (json_valid(client))
) STRICT;

CREATE INDEX message_arrival ON message (arrived_at);

-- Apart from the message, so that listings do not read over contents.
CREATE TABLE body (
    message  INTEGER PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
    content  BLOB,
    spool    TEXT NOT NULL CHECK ((content IS NULL) = (spool <> ''))    -- the file's name in the spool directory
) STRICT;

CREATE INDEX body_spooled ON body (spool) WHERE spool <> '';

-- The recipients of one message that go to one destination: the unit of work.
CREATE TABLE delivery (
    message      INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    number       INTEGER NOT NULL,
    destination  TEXT    NOT NULL CHECK (destination <> ''),
    state        TEXT    NOT NULL CHECK (state IN ('waiting', 'leased', 'held')),
    next_attempt INTEGER NOT NULL,
    attempts     INTEGER NOT NULL CHECK (attempts >= 0),        -- begun, the leased one included
    lease        INTEGER NOT NULL,                              -- the serial number in the lease's token
    lease_until  INTEGER NOT NULL,
    held         INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),     -- state goes back to held, not to waiting
    tls_override TEXT    NOT NULL DEFAULT '' CHECK (tls_override = '' OR json_valid(tls_override)),
    began_at     INTEGER NOT NULL DEFAULT 0,                    -- when the last attempt began; 0 before the first
    PRIMARY KEY (message, number),
    CHECK ((state = 'leased') = (lease <> 0) AND (state = 'leased') = (lease_until <> 0)),
    CHECK (state <> 'leased' OR attempts > 0)
) STRICT, WITHOUT ROWID;

-- attempts rides along so that counting by state reads only the index.
CREATE INDEX delivery_due ON delivery (next_attempt, destination, attempts) WHERE state = 'waiting';
CREATE INDEX delivery_destination ON delivery (destination, next_attempt) WHERE state = 'waiting';
CREATE INDEX delivery_leased ON delivery (lease_until) WHERE state = 'leased';
CREATE INDEX delivery_held ON delivery (destination) WHERE state = 'held';

CREATE TABLE recipient (
    message  INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    position INTEGER NOT NULL,                                  -- in the envelope
    address  TEXT    NOT NULL,
    domain   TEXT    NOT NULL,
    notify   INTEGER NOT NULL CHECK (notify BETWEEN 0 AND 15),
    orcpt    TEXT    NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'bounced')),
    reason   TEXT    NOT NULL,                                  -- of the last result, empty before the first
    status     TEXT    NOT NULL DEFAULT '',                     -- its enhanced status code
    delay_told INTEGER NOT NULL DEFAULT 0 CHECK (delay_told IN (0, 1)), -- whether the sender heard of the delay
    PRIMARY KEY (message, id),
    FOREIGN KEY (message) REFERENCES message (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Mail that comes in and that one of these filters matches is held at once.
CREATE TABLE hold_rule (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    filter  TEXT    NOT NULL CHECK (filter <> ''),
    reason  TEXT    NOT NULL,
    made_by TEXT    NOT NULL,
    made_at INTEGER NOT NULL
) STRICT;
