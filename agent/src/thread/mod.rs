//! What each thread keeps of the calls that it serves, so that a call needs no lock and no atomic
//! addition: which they are ([`presence`]), and how many were answered ([`tally`]), both in one
//! [`place`].

mod given;
mod place;
pub(crate) mod presence;
pub(crate) mod tally;

use std::cell::Cell;

use given::Given;

/// What each call looks at, in one line of the processor's cache. Each field is the business of one
/// module, which says more of it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Here {
    /// How many calls are inside one another: `host/frame.rs`.
    pub(crate) depth: Cell<u32>,
    /// Calls that are left untimed before the next that is not: `metrics/meter.rs`.
    pub(crate) untimed: Cell<u32>,
    /// The deadline of the innermost call, in Unix milliseconds, or zero: `host/frame.rs`.
    pub(crate) deadline_ms: Cell<u64>,
    /// Whether the innermost call has a trace: `host/frame.rs`.
    pub(crate) is_traced: Cell<bool>,
    /// The place at hand.
    near: place::Place,
    /// `None` before the first call, and at the thread's end.
    kept: Cell<Option<&'static Kept>>,
}

/// What others read of a thread, besides its place at hand.
#[derive(Debug, Default)]
struct Kept {
    places: place::Places,
    rest_of_near: place::Rest,
}

thread_local! {
    static HERE: Here = const {
        Here {
            depth: Cell::new(0),
            untimed: Cell::new(0),
            deadline_ms: Cell::new(0),
            is_traced: Cell::new(false),
            near: place::Place::free(),
            kept: Cell::new(None),
        }
    };
    static GIVEN: Given = Given::new();
}

/// Looks at what this thread keeps. Little at a time, so that it is compiled into its caller.
#[inline(always)]
pub(crate) fn here<T>(look: impl FnOnce(&Here) -> T) -> T {
    HERE.with(look)
}

/// What others read of this thread, where it has served a call already.
#[inline(always)]
fn kept() -> Option<&'static Kept> {
    here(|here| here.kept.get())
}

/// The same, made where there is none yet; `None` where the thread is ending.
fn kept_or_made() -> Option<&'static Kept> {
    kept().or_else(|| GIVEN.try_with(|given| given.0).ok())
}
