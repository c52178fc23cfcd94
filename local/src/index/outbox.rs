//! Events that are committed and not yet acknowledged by their subscriber.

use rusqlite::{Connection, params};

use super::Index;
use super::objects::NewObject;
use crate::error::IndexError;
use crate::events;

/// An undelivered event.
#[derive(Debug)]
pub(crate) struct OutboxRow {
    pub(crate) id: i64,
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// The notification's JSON text.
    pub(crate) event: String,
}

pub(super) fn add(
    connection: &Connection,
    new: &NewObject,
    sequencer: i64,
    region: &str,
) -> Result<(), IndexError> {
    let event = events::notification(new, sequencer, region).to_string();
    connection
        .prepare_cached("INSERT INTO outbox (bucket, key, event) VALUES (?1, ?2, ?3)")?
        .execute(params![new.bucket, new.key, event])?;
    Ok(())
}

impl Index {
    /// Undelivered events after `id`, oldest first. Ids grow in commit order.
    pub(crate) fn outbox_after(&self, id: i64, limit: usize) -> Result<Vec<OutboxRow>, IndexError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT id, bucket, key, event FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let rows = statement.query_map(params![id, limit.cast_signed()], |row| {
            Ok(OutboxRow {
                id: row.get(0)?,
                bucket: row.get(1)?,
                key: row.get(2)?,
                event: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many events wait.
    pub(crate) fn outbox_len(&self) -> Result<u64, IndexError> {
        let count: i64 = self
            .reader()
            .prepare_cached("SELECT count(*) FROM outbox")?
            .query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Forgets an event that its subscriber has acknowledged.
    pub(crate) async fn outbox_remove(&self, id: i64) -> Result<(), IndexError> {
        self.writer
            .write(move |connection, _| {
                connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
                Ok(())
            })
            .await
    }
}
