//! The C library of this machine: how a process is started so that it copies as fast as the
//! processor can, how a thread is kept from growing its heap by single pages, and how memory that
//! was used once goes back to the system.
//!
//! Up to 2.39, glibc copies from 2 KiB on by `rep movsb`, which Zen 3 and Zen 4 do up to twenty
//! times slower than a loop where the target lies a few bytes behind the source within its page
//! (glibc bug 30994; 2.40 leaves the instruction alone there). What a component is called with
//! often lies so, and then the copies take most of a call. Nothing in the process can choose
//! otherwise: the library decides at its start, by a variable of the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use modunest_core::relation::LibcFloor;

use crate::host::libc_version;

/// Settings of glibc (ld.so(8)), between colons.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// From how many bytes on a copy is made by `rep movsb`.
const SETTING: &str = "glibc.cpu.x86_rep_movsb_threshold";
/// Above any copy.
const NEVER: &str = "0x7fffffffffffffff";
/// The first glibc that knows better.
const MENDED: LibcFloor = LibcFloor { major: 2, minor: 40 };

/// Starts this program anew in this process, with the same arguments, where its C library would
/// otherwise copy slowly and nobody has chosen that; else it does nothing. A program that embeds
/// the agent may call it, too, before it starts any thread.
///
/// # Errors
/// The program could not be started anew; it goes on as it is.
pub fn start_anew_where_copies_are_slow() -> std::io::Result<()> {
    if !are_copies_slow() {
        return Ok(());
    }
    let Some(value) = with_setting(std::env::var_os(VARIABLE).as_deref()) else { return Ok(()) };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).env(VARIABLE, value).exec())
}

/// What a process with an environment of its own is given, so that it copies as fast as it can.
pub(crate) fn environment() -> Option<(&'static str, OsString)> {
    are_copies_slow().then(|| (VARIABLE, format!("{SETTING}={NEVER}").into()))
}

/// Lets this thread allocate so many bytes without a change to the process's map of memory. glibc
/// grows the heap of a thread by a page at a time, and for each of these steps all threads wait that
/// touch memory for the first time; what it has grown to once, it need not grow to again. None of it
/// is used until somebody does.
pub(crate) fn make_room(bytes: usize) {
    /// Below what is mapped by itself (`M_MMAP_THRESHOLD` of mallopt(3)).
    const PIECE_BYTES: usize = 96 * 1024;
    /// Half of the largest heap of a thread.
    const MOST_BYTES: usize = 32 * 1024 * 1024;
    let pieces = bytes.min(MOST_BYTES) / PIECE_BYTES;
    let pieces: Vec<Vec<u8>> = (0..pieces).map(|_| Vec::with_capacity(PIECE_BYTES)).collect();
    drop(std::hint::black_box(pieces));
}

/// Gives pages back to the system on which nothing is allocated any more (malloc_trim(3)). glibc
/// keeps them, in as many heaps as threads have met one another, and so a process takes more the
/// longer it allocates and frees. Takes milliseconds, in which other threads wait for their heap.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that is allocated, and any thread may call it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The variable's value with the setting; `None` where it has one already.
fn with_setting(now: Option<&OsStr>) -> Option<OsString> {
    let now = now.unwrap_or_default();
    let is_set = |part: &[u8]| {
        part.strip_prefix(SETTING.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    if now.as_bytes().split(|byte| *byte == b':').any(is_set) {
        return None;
    }
    let mut value = now.to_owned();
    if !now.is_empty() {
        value.push(":");
    }
    value.push(format!("{SETTING}={NEVER}"));
    Some(value)
}

fn are_copies_slow() -> bool {
    libc_version().is_some_and(|version| version < MENDED) && processor().is_some_and(is_slow)
}

/// Its vendor, and its family.
type Processor = ([u8; 12], u32);

/// Zen 3 and Zen 4, which both say that they are quick at it.
fn is_slow((vendor, family): Processor) -> bool {
    vendor == *b"AuthenticAMD" && family == 0x19
}

/// AMD64 Architecture Programmer's Manual, volume 3, E.3: functions 0 and 1 of `cpuid`.
#[cfg(target_arch = "x86_64")]
fn processor() -> Option<Processor> {
    use std::arch::x86_64::__cpuid;
    let (name, signature) = (__cpuid(0), __cpuid(1).eax);
    let words = [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes);
    let (base, extended) = (signature >> 8 & 0xf, signature >> 20 & 0xff);
    let family = if base == 0xf { base + extended } else { base };
    Some((words.concat().try_into().ok()?, family))
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Option<Processor> {
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::process;

    #[test]
    fn what_others_have_set_stays_and_what_they_have_decided_holds() {
        let with = |now: Option<&str>| {
            with_setting(now.map(OsStr::new)).map(|value| value.into_string().unwrap())
        };
        let ours = format!("{SETTING}={NEVER}");
        assert_eq!(with(None), Some(ours.clone()));
        assert_eq!(with(Some("")), Some(ours.clone()));
        let other = "glibc.malloc.check=1";
        assert_eq!(with(Some(other)), Some(format!("{other}:{ours}")));
        let longer = format!("{SETTING}_of_another=1");
        assert_eq!(with(Some(&longer)), Some(format!("{longer}:{ours}")));
        for decided in [format!("{SETTING}=4096:{other}"), format!("{other}:{ours}")] {
            assert_eq!(with(Some(&decided)), None);
        }
    }

    #[test]
    fn processors_are_told_apart_by_vendor_and_family() {
        assert!(is_slow((*b"AuthenticAMD", 0x19)));
        for other in [(*b"AuthenticAMD", 0x17), (*b"AuthenticAMD", 0x1a), (*b"GenuineIntel", 0x19)]
        {
            assert!(!is_slow(other));
        }
    }

    #[test]
    fn what_nothing_is_allocated_on_goes_back_to_the_system() {
        // Small enough to come from the heap, of which what is kept is the last: behind it nothing
        // can be given back by glibc itself.
        let mut pieces: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; 1024]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = process::own().unwrap().resident_bytes;
        give_back();
        let after = process::own().unwrap().resident_bytes;
        assert!(after + 48 * 1024 * 1024 < before, "{after} of {before} bytes");
        drop(last);
    }
}
