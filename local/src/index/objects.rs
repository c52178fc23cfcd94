//! Buckets and objects: what a row holds, and the writes that change rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Index;
use super::outbox;
use super::writer::Effects;
use crate::error::IndexError;
use crate::events::EventName;
use crate::files::{FileName, PendingFile};

/// Where an object's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the index itself.
    Inline,
    /// In a file.
    File(FileName),
}

/// What a client may store beside the bytes; kept verbatim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    /// An HTTP date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A stored object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) size_bytes: u64,
    /// MD5 of the content in hex, without quotes, as S3 gives for a plain upload.
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
    /// Lowercase: `sha256`, `crc32`, `crc32c`, `sha1`, `crc64nvme`.
    pub(crate) checksum_algorithm: String,
    /// Base64, as in the header.
    pub(crate) checksum: String,
    pub(crate) headers: Headers,
    pub(crate) place: Place,
}

/// The bytes of a new object, verified and, if in a file, synced.
#[derive(Debug)]
pub(crate) enum Content {
    Inline(Bytes),
    File(PendingFile),
}

/// A verified object on its way into the index.
#[derive(Debug)]
pub(crate) struct NewObject {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
    pub(crate) checksum_algorithm: String,
    pub(crate) checksum: String,
    pub(crate) headers: Headers,
    pub(crate) content: Content,
    pub(crate) event: EventName,
    pub(crate) condition: Condition,
}

/// A condition on what the key holds before a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Whatever it holds.
    #[default]
    None,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match: *`.
    Present,
    /// `If-Match: "etag"`.
    Etag(String),
}

/// Why a write changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    BucketExists,
    BucketNotEmpty,
}

/// The answer to a put.
#[derive(Debug)]
pub(crate) enum Put {
    Stored,
    Refused(Refusal),
}

/// The answer to a delete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// The key is absent now, whether or not it was before.
    Gone,
    Refused(Refusal),
}

impl Condition {
    /// Decides on the entity tag that the key holds now.
    pub(crate) fn check(&self, current: Option<&str>) -> Result<(), Refusal> {
        match (self, current) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Etag(wanted), Some(current)) if wanted == current => Ok(()),
            (Self::Present | Self::Etag(_), None) => Err(Refusal::NoSuchKey),
            (Self::Absent | Self::Etag(_), Some(_)) => Err(Refusal::PreconditionFailed),
        }
    }
}

impl Index {
    pub(crate) async fn create_bucket(
        &self,
        name: String,
        now_ms: i64,
    ) -> Result<Result<(), Refusal>, IndexError> {
        self.writer
            .write(move |connection, _| {
                let inserted = connection
                    .prepare_cached("INSERT INTO buckets VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                    .execute(params![name, now_ms])?;
                Ok(if inserted == 1 { Ok(()) } else { Err(Refusal::BucketExists) })
            })
            .await
    }

    pub(crate) async fn delete_bucket(
        &self,
        name: String,
    ) -> Result<Result<(), Refusal>, IndexError> {
        self.writer
            .write(move |connection, _| {
                let occupied: bool = connection
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1)")?
                    .query_row([&name], |row| row.get(0))?;
                if occupied {
                    return Ok(Err(Refusal::BucketNotEmpty));
                }
                let removed = connection
                    .prepare_cached("DELETE FROM buckets WHERE name = ?1")?
                    .execute([&name])?;
                Ok(if removed == 1 { Ok(()) } else { Err(Refusal::NoSuchBucket) })
            })
            .await
    }

    /// Names and creation times (milliseconds since 1970), in order.
    pub(crate) fn buckets(&self) -> Result<Vec<(String, i64)>, IndexError> {
        let reader = self.reader();
        let mut statement =
            reader.prepare_cached("SELECT name, created_ms FROM buckets ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn has_bucket(&self, name: &str) -> Result<bool, IndexError> {
        bucket_exists(&self.reader(), name)
    }

    /// The object without its bytes.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> Result<Option<Object>, IndexError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT size, etag, modified_ms, checksum_algorithm, checksum, headers, file
             FROM objects WHERE bucket = ?1 AND key = ?2",
        )?;
        let mut rows = statement.query([bucket, key])?;
        rows.next()?.map(read_object).transpose()
    }

    /// The object, with its bytes if they are inline: one statement, so both belong together.
    pub(crate) fn object_and_bytes(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<(Object, Option<Bytes>)>, IndexError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT size, etag, modified_ms, checksum_algorithm, checksum, headers, file, bytes
             FROM objects LEFT JOIN contents ON contents.id = objects.content
             WHERE bucket = ?1 AND key = ?2",
        )?;
        let mut rows = statement.query([bucket, key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let bytes: Option<Vec<u8>> = row.get(7)?;
        Ok(Some((read_object(row)?, bytes.map(Bytes::from))))
    }

    /// Stores a verified object, if its condition holds, and its event.
    pub(crate) async fn put(&self, new: NewObject) -> Result<Put, IndexError> {
        let wanted = self.interest.region_if_wanted(&new.bucket, &new.key);
        self.writer.write(move |connection, effects| put(connection, effects, new, wanted)).await
    }

    /// Removes a key, if the condition holds. S3 counts removing an absent key as done.
    pub(crate) async fn delete(
        &self,
        bucket: String,
        key: String,
        condition: Condition,
    ) -> Result<Deleted, IndexError> {
        self.writer
            .write(move |connection, effects| {
                if !bucket_exists(connection, &bucket)? {
                    return Ok(Deleted::Refused(Refusal::NoSuchBucket));
                }
                let old = previous(connection, &bucket, &key)?;
                if let Err(refusal) = condition.check(old.as_ref().map(|old| old.etag.as_str())) {
                    return Ok(Deleted::Refused(refusal));
                }
                connection
                    .prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?
                    .execute([&bucket, &key])?;
                release(connection, effects, old)?;
                Ok(Deleted::Gone)
            })
            .await
    }
}

fn put(
    connection: &Connection,
    effects: &mut Effects,
    new: NewObject,
    wanted: Option<String>,
) -> Result<Put, IndexError> {
    if !bucket_exists(connection, &new.bucket)? {
        return Ok(Put::Refused(Refusal::NoSuchBucket));
    }
    let old = previous(connection, &new.bucket, &new.key)?;
    if let Err(refusal) = new.condition.check(old.as_ref().map(|old| old.etag.as_str())) {
        return Ok(Put::Refused(refusal));
    }
    let sequencer: i64 = connection
        .prepare_cached("UPDATE sequence SET last = last + 1 RETURNING last")?
        .query_row([], |row| row.get(0))?;
    let (content, file) = match &new.content {
        Content::Inline(bytes) => {
            connection
                .prepare_cached("INSERT INTO contents (bytes) VALUES (?1)")?
                .execute([bytes.as_ref()])?;
            (Some(connection.last_insert_rowid()), None)
        }
        Content::File(file) => (None, Some(file.name().as_str())),
    };
    let headers = serde_json::to_string(&new.headers)
        .map_err(|error| IndexError::BadRow(error.to_string()))?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            new.bucket,
            new.key,
            new.size_bytes.cast_signed(),
            new.etag,
            new.modified_ms,
            sequencer,
            new.checksum_algorithm,
            new.checksum,
            headers,
            content,
            file,
        ])?;
    release(connection, effects, old)?;
    if let Some(region) = wanted {
        outbox::add(connection, &new, sequencer, &region)?;
        effects.events = true;
    }
    if let Content::File(file) = new.content {
        // Should the commit fail with its outcome unknown, the file stays for
        // the next start's sweep, which knows whether a row names it.
        file.keep();
    }
    Ok(Put::Stored)
}

/// What a write replaces.
struct Previous {
    etag: String,
    content: Option<i64>,
    file: Option<String>,
}

fn previous(
    connection: &Connection,
    bucket: &str,
    key: &str,
) -> Result<Option<Previous>, IndexError> {
    Ok(connection
        .prepare_cached("SELECT etag, content, file FROM objects WHERE bucket = ?1 AND key = ?2")?
        .query_row([bucket, key], |row| {
            Ok(Previous { etag: row.get(0)?, content: row.get(1)?, file: row.get(2)? })
        })
        .optional()?)
}

/// Gives back the bytes of a row that is gone or replaced.
fn release(
    connection: &Connection,
    effects: &mut Effects,
    old: Option<Previous>,
) -> Result<(), IndexError> {
    let Some(old) = old else { return Ok(()) };
    if let Some(id) = old.content {
        connection.prepare_cached("DELETE FROM contents WHERE id = ?1")?.execute([id])?;
    }
    if let Some(file) = old.file {
        effects.unused_files.push(file_name(&file)?);
    }
    Ok(())
}

fn bucket_exists(connection: &Connection, name: &str) -> Result<bool, IndexError> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM buckets WHERE name = ?1)")?
        .query_row([name], |row| row.get(0))?)
}

/// Reads the columns `size, etag, modified_ms, checksum_algorithm, checksum, headers, file`.
fn read_object(row: &Row<'_>) -> Result<Object, IndexError> {
    let headers: String = row.get(5)?;
    let file: Option<String> = row.get(6)?;
    Ok(Object {
        size_bytes: size_bytes(row.get(0)?)?,
        etag: row.get(1)?,
        modified_ms: row.get(2)?,
        checksum_algorithm: row.get(3)?,
        checksum: row.get(4)?,
        headers: serde_json::from_str(&headers)
            .map_err(|error| IndexError::BadRow(error.to_string()))?,
        place: match file {
            Some(file) => Place::File(file_name(&file)?),
            None => Place::Inline,
        },
    })
}

pub(super) fn size_bytes(size: i64) -> Result<u64, IndexError> {
    u64::try_from(size).map_err(|_| IndexError::BadRow(format!("a size of {size}")))
}

pub(super) fn file_name(text: &str) -> Result<FileName, IndexError> {
    FileName::parse(text).ok_or_else(|| IndexError::BadRow(format!("the file name {text:?}")))
}
