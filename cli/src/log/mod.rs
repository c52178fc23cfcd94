//! A registry's log and index, read as anybody can: files over HTTP, each proven by what was
//! proven before it. What is learnt is what the trust configuration's keys signed; who
//! answers is believed in nothing.

mod fetch;
mod signed;
mod trust;
mod words;

pub use fetch::{Files, ReadError};
pub use signed::check_age;
pub use trust::Trust;
pub use words::{key_id, say, signer_id};
