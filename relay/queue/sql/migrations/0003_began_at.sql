-- When the last attempt began, so that one that was cut off can be told.
ALTER TABLE delivery ADD COLUMN began_at INTEGER NOT NULL DEFAULT 0;
