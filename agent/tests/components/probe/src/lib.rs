//! A plugin that keeps a count, does what it is told, and attacks where it is told to.

use std::sync::atomic::{AtomicU64, Ordering};

use modunest_sdk::{
    Error, Host, HttpRequest, HttpResponse, Level, Plugin, Request, export_plugin,
};

/// Its state.
pub struct Probe {
    host: Host,
    calls: AtomicU64,
}

impl Plugin for Probe {
    fn create(host: Host, config: &[u8]) -> Result<Self, Error> {
        match config {
            b"refuse" => Err(Error::invalid_input("the configuration says no")),
            b"spin" => spin(),
            _ => Ok(Self { host, calls: AtomicU64::new(0) }),
        }
    }

    fn before_load(&self) -> Result<(), Error> {
        self.host.log(Level::Debug, "before load");
        Ok(())
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let payload = request.payload;
        match request.target {
            "echo" => Ok(payload.to_vec()),
            "count" => {
                let count = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(count.to_string().into_bytes())
            }
            "request" => Ok(format!(
                "{} {} {} {}",
                request.target,
                request.caller.unwrap_or("-"),
                request.trace.unwrap_or("-"),
                request.deadline_ms.unwrap_or(0),
            )
            .into_bytes()),
            "now" => Ok(self.host.now_ms().to_string().into_bytes()),
            "assets" => Ok(self.host.assets()?.join("\n").into_bytes()),
            "asset" => self.host.asset(text(payload)?),
            "folder" => self.host.assets_dir().map(|_| Vec::new()),
            "operate" => self.host.operate(7, payload),
            "service" => {
                let (plugin, service) = text(payload)?
                    .split_once(' ')
                    .ok_or_else(|| Error::invalid_input("a plugin and a service"))?;
                self.host.service(plugin, service, b"from probe")
            }
            "fail" => Err(Error::failed("as it was told to")),
            "panic" => panic!("as it was told to"),
            "abort" => std::process::abort(),
            "spin" => spin(),
            "grow" => grow(),
            "recurse" => Ok(recurse(0, &mut [0; 64]).to_string().into_bytes()),
            "large" => Ok(vec![b'x'; 17 * 1024 * 1024]),
            "lie" => Ok(lie()),
            "storm" => {
                for round in 0..100_000u32 {
                    self.host.log(Level::Trace, "storm");
                    if self.host.operate(round, b"").is_ok() {
                        return Err(Error::failed("an operation that nobody granted"));
                    }
                }
                Ok(Vec::new())
            }
            "read-file" => match std::fs::read("/etc/passwd") {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(Error::Denied(error.to_string())),
            },
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }

    /// The last part of the path is the service, the body its payload.
    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let service = request.path.rsplit('/').next().unwrap_or_default();
        let answer = self.call(Request::new(service, &request.body))?;
        Ok(HttpResponse::new(200, "application/octet-stream", answer))
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(self.calls.load(Ordering::Relaxed).to_le_bytes().to_vec())
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let bytes = snapshot.try_into().map_err(|_| Error::invalid_input("eight bytes"))?;
        self.calls.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(Error::invalid_input)
}

fn spin() -> ! {
    let mut round = 0u64;
    loop {
        round = std::hint::black_box(round.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1u8; 1024 * 1024]));
    }
}

#[allow(unconditional_recursion, reason = "that is the attack")]
fn recurse(depth: u64, room: &mut [u64; 64]) -> u64 {
    let mut inner = *room;
    inner[(depth % 64) as usize] = depth;
    let below = recurse(depth + 1, std::hint::black_box(&mut inner));
    below + inner[0]
}

/// A vector that says it is larger than all of memory.
fn lie() -> Vec<u8> {
    // SAFETY: none, on purpose. It is handed to the host unread, which ends the instance.
    unsafe { Vec::from_raw_parts(0xffff_0000 as *mut u8, 0x7fff_ffff, 0x7fff_ffff) }
}

export_plugin!(Probe);
