//! A number of places that changes while they are taken.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Changes how many places there are. Of fewer, those that are free are gone at once, the others
/// as soon as they come back, before anybody else gets one. To be called within a runtime.
pub(super) fn resize(places: &Arc<Semaphore>, before: usize, now: usize) {
    if now >= before {
        places.add_permits(now - before);
        return;
    }
    let taken = before - now - places.forget_permits(before - now);
    // More than anybody configures would be gone only in part.
    let taken = u32::try_from(taken).unwrap_or(u32::MAX);
    if taken > 0 {
        let back = places.clone().acquire_many_owned(taken);
        tokio::spawn(async move {
            // Never closed.
            if let Ok(back) = back.await {
                back.forget();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn places_that_are_taken_go_when_they_come_back() {
        let places = Arc::new(Semaphore::new(3));
        let take = || places.clone().try_acquire_owned().unwrap();
        let (first, second) = (take(), take());
        resize(&places, 3, 1);
        assert_eq!(places.available_permits(), 0);
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(places.try_acquire().is_err(), "the first that comes back is one too many");
        drop(second);
        assert_eq!(places.available_permits(), 1);
        resize(&places, 1, 4);
        assert_eq!(places.available_permits(), 4);
    }

    #[tokio::test]
    async fn more_places_follow_upon_fewer_that_have_not_come_back() {
        let places = Arc::new(Semaphore::new(2));
        let taken = places.clone().try_acquire_many_owned(2).unwrap();
        resize(&places, 2, 1);
        tokio::task::yield_now().await;
        resize(&places, 1, 3);
        assert_eq!(places.available_permits(), 1);
        drop(taken);
        assert_eq!(places.available_permits(), 3);
    }
}
