//! A copy of this process, beside it.

use std::io;

/// Which of the two a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The copy.
    Child,
    /// The original; the copy has this number.
    Parent(u32),
}

/// Copies the calling process. The copy's parent is not the caller, but the caller's own
/// parent, which waits for it and with which it ends, as if that had started it. Must be called
/// while the process has one thread.
///
/// # Errors
/// When the system has no room for one more.
pub fn fork_sibling() -> io::Result<Forked> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: as `fork`: the copy goes on with a copy of this stack, and with one thread there
    // is no lock that another one holds. What the C library does for a fork beyond that is about
    // handlers that nobody registers here, and about the number of this thread, which it uses for
    // threads that are waited for or signalled by their handle: the first one never is.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match u32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Ok(Forked::Parent(pid)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Where the arguments of this process lie, which others read as its name.
#[derive(Debug)]
pub struct Arguments {
    at: *mut u8,
    length: usize,
}

/// The arguments of this process.
///
/// # Errors
/// When the kernel does not say where they are.
pub fn own_arguments() -> io::Result<Arguments> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let unknown = || io::Error::other("/proc/self/stat does not say where the arguments are");
    // The name stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(unknown)?;
    // Begin and end of the arguments are fields 48 and 49; the state, field 3, is first here.
    let mut places = fields.split_ascii_whitespace().skip(45).take(2).map(str::parse::<usize>);
    match (places.next(), places.next()) {
        (Some(Ok(begin)), Some(Ok(end))) if begin > 0 && end > begin => {
            let at = std::ptr::with_exposed_provenance_mut(begin);
            Ok(Arguments { at, length: end - begin })
        }
        _ => Err(unknown()),
    }
}

impl Arguments {
    /// Puts a text in their place, cut where there is no room for all of it.
    pub fn write(&self, text: &str) {
        let length = text.len().min(self.length - 1);
        // SAFETY: the kernel wrote the arguments there when this program began, and gave the
        // process this memory; the standard library copies them out whenever it is asked, and no
        // other thread runs. The last byte stays zero, so that each is a text that ends.
        unsafe {
            std::ptr::write_bytes(self.at, 0, self.length);
            std::ptr::copy_nonoverlapping(text.as_ptr(), self.at, length);
        }
    }
}
