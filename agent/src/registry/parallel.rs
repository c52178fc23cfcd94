//! Work for all processors.

/// Maps `items` in their order, on as many threads as there are processors, each with at least
/// `per_thread_min` of them.
pub(super) fn map<T: Sync, U: Send>(
    items: &[T],
    per_thread_min: usize,
    one: impl Fn(&T) -> U + Sync,
) -> Vec<U> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(items.len() / per_thread_min).max(1);
    let share = items.len().div_ceil(threads).max(1);
    let one = &one;
    std::thread::scope(|scope| {
        let mut shares = items.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(one).collect::<Vec<_>>()))
            .collect();
        let mut done: Vec<_> = own.iter().map(one).collect();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}
