//! Random bytes from the operating system.

/// `N` random bytes, fit for secrets.
///
/// # Panics
/// When the operating system has no random numbers: going on would make guessable secrets.
#[allow(clippy::expect_used, reason = "without random numbers no secret can be made")]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has no random numbers");
    bytes
}
