//! Whoever answers the load, and one turn of it.

use super::load::{self, Plan};
use super::{CONNECTIONS, Case};
use crate::error::Error;
use crate::process;

/// A server under load.
pub struct Subject {
    /// Who, for people.
    pub name: &'static str,
    /// The process; those below it count with it.
    pub process: u32,
    /// Address and port.
    pub address: String,
    /// Path of the index file.
    pub index: String,
    /// Path of the blob.
    pub blob: String,
}

/// What one turn showed.
pub struct Turn {
    /// User and kernel time of the server's processes, by request.
    pub cpu_us: f64,
    /// What the load saw.
    pub load: load::Outcome,
}

impl Subject {
    /// Sends one turn of requests, from a process of its own.
    pub fn turn(
        &self,
        case: &Case,
        requests: u32,
        processor: Option<usize>,
    ) -> Result<Turn, Error> {
        let path = if case.is_blob { &self.blob } else { &self.index };
        let found = load::find(&self.address, path)?;
        if case.is_conditional && found.tag.is_none() {
            let why = format!("{} gives {path} no entity tag", self.name);
            return Err(Error::Wrong { what: "a condition", why });
        }
        let plan = Plan {
            address: self.address.clone(),
            path: path.clone(),
            if_none_match: found.tag.filter(|_| case.is_conditional),
            requests,
            connections: CONNECTIONS,
            body_bytes: if case.is_conditional { 0 } else { found.body_bytes },
        };
        let before = process::cpu_time_of_tree(self.process)?;
        let load = process::ask(process::own(&plan.arguments(), processor)?)?;
        let cpu = process::cpu_time_of_tree(self.process)?.saturating_sub(before);
        Ok(Turn { cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(requests), load })
    }
}
