//! Whose turn it is: what several callers want, and one at a time may have, in the order in which
//! they came.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modunest_sdk::Error;
use tokio::sync::oneshot;

/// Things that are taken and given back.
#[derive(Debug)]
pub(super) struct Turns<T: Default>(Mutex<Places<T>>);

#[derive(Debug)]
struct Places<T> {
    /// How many there are, free or not.
    all: usize,
    /// Nobody has them; if there are any, nobody waits.
    free: Vec<T>,
    /// Who waits, the first in front.
    callers: VecDeque<oneshot::Sender<T>>,
}

/// Something that was taken. It goes back whatever happens, and as its default where it was
/// moved out.
#[derive(Debug)]
pub(super) struct Turn<'t, T: Default> {
    turns: &'t Turns<T>,
    pub(super) place: T,
}

impl<T: Default> Default for Turns<T> {
    fn default() -> Self {
        Turns(Mutex::new(Places { all: 0, free: Vec::new(), callers: VecDeque::new() }))
    }
}

impl<T: Default> Turns<T> {
    /// One more to take.
    pub(super) fn add(&self, place: T) {
        self.lock().all += 1;
        self.give(place);
    }

    /// Whether any is taken. The lock that is held for it orders this among all that take and
    /// give back.
    pub(super) fn are_taken(&self) -> bool {
        let places = self.lock();
        places.free.len() < places.all
    }

    /// Drops all that are free.
    pub(super) fn clear(&self) {
        let free = {
            let mut places = self.lock();
            places.all -= places.free.len();
            std::mem::take(&mut places.free)
        };
        drop(free);
    }

    /// What is free, if anything is; then nobody waits for it.
    pub(super) fn take_now(&self) -> Option<Turn<'_, T>> {
        let place = self.lock().free.pop()?;
        Some(Turn { turns: self, place })
    }

    /// Waits behind those who came before. Who gives up, because this future is dropped, is
    /// passed over.
    ///
    /// # Errors
    /// Never: those who wait are kept as long as this is.
    pub(super) async fn take(&self) -> Result<Turn<'_, T>, Error> {
        let (caller, handed) = oneshot::channel();
        {
            let mut places = self.lock();
            if let Some(place) = places.free.pop() {
                return Ok(Turn { turns: self, place });
            }
            places.callers.push_back(caller);
        }
        let mut waiting = Waiting { turns: self, handed };
        let place = (&mut waiting.handed).await;
        let place = place.map_err(|lost| Error::Failed(lost.to_string()))?;
        Ok(Turn { turns: self, place })
    }

    /// Hands a place to who waits longest, or makes it free.
    fn give(&self, mut place: T) {
        loop {
            let caller = {
                let mut places = self.lock();
                match places.callers.pop_front() {
                    Some(caller) => caller,
                    None => return places.free.push(place),
                }
            };
            // Without the lock: to wake somebody may run code of theirs.
            match caller.send(place) {
                Ok(()) => return,
                Err(unwanted) => place = unwanted,
            }
        }
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.lock().free.len()
    }

    /// What it holds is never left half-changed.
    fn lock(&self) -> MutexGuard<'_, Places<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.turns.give(std::mem::take(&mut self.place));
    }
}

/// Somebody who waits.
struct Waiting<'t, T: Default> {
    turns: &'t Turns<T>,
    handed: oneshot::Receiver<T>,
}

impl<T: Default> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if self.handed.is_terminated() {
            return;
        }
        self.handed.close();
        match self.handed.try_recv() {
            // What was handed over and not taken is the next one's.
            Ok(place) => self.turns.give(place),
            // A place may be out for long, and nobody else removes who gave up.
            Err(_) => self.turns.lock().callers.retain(|caller| !caller.is_closed()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    fn with(places: &[&'static str]) -> Turns<Option<&'static str>> {
        let turns = Turns::default();
        places.iter().for_each(|place| turns.add(Some(*place)));
        turns
    }

    #[test]
    fn who_came_first_is_served_first() {
        let turns = with(&["one"]);
        let taken = turns.take_now().unwrap();
        let (mut first, mut second) = (Box::pin(turns.take()), Box::pin(turns.take()));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        drop(taken);
        // It is the first one's, whoever asks before.
        assert!(turns.take_now().is_none());
        assert!(poll(second.as_mut()).is_none());
        let taken = poll(first.as_mut()).unwrap().unwrap();
        assert_eq!(taken.place, Some("one"));
        drop(taken);
        assert_eq!(poll(second.as_mut()).unwrap().unwrap().place, Some("one"));
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn who_gives_up_takes_nothing_along() {
        let turns = with(&["one"]);
        let taken = turns.take_now().unwrap();
        let (mut before, mut handed) = (Box::pin(turns.take()), Box::pin(turns.take()));
        assert!(poll(before.as_mut()).is_none());
        assert!(poll(handed.as_mut()).is_none());
        let mut last = pin!(turns.take());
        assert!(poll(last.as_mut()).is_none());
        drop(before);
        assert_eq!(turns.lock().callers.len(), 2);
        drop(taken);
        // Handed over, and not taken.
        drop(handed);
        assert_eq!(poll(last).unwrap().unwrap().place, Some("one"));
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn what_is_moved_out_comes_back_as_nothing() {
        let turns = with(&["one", "two"]);
        let mut taken = turns.take_now().unwrap();
        assert_eq!(taken.place.take(), Some("two"));
        assert!(turns.are_taken());
        drop(taken);
        assert!(!turns.are_taken());
        assert_eq!(turns.free(), 2);
        assert_eq!(turns.take_now().unwrap().place, None);
    }

    #[test]
    fn what_was_free_is_dropped_at_once() {
        let shared = std::sync::Arc::new(());
        let turns = Turns::default();
        turns.add(Some(shared.clone()));
        turns.clear();
        assert_eq!(std::sync::Arc::strong_count(&shared), 1);
        assert!(!turns.are_taken() && turns.take_now().is_none());
    }
}
