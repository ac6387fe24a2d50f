//! Lets namespaces take turns, so that a namespace with much work does not delay the others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::passes;

/// Items that wait, by namespace. The namespaces take turns: at each turn, the oldest item of one namespace is taken
/// out.
pub(crate) struct Turns<T> {
    waiting: HashMap<Arc<str>, VecDeque<T>>,
    /// The namespaces with waiting items, each once. The first namespace has the next turn.
    order: VecDeque<Arc<str>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Turns<T> {
    pub(crate) fn push(&mut self, whose: &str, item: T) {
        if let Some(items) = self.waiting.get_mut(whose) {
            return items.push_back(item);
        }
        let whose: Arc<str> = whose.into();
        self.order.push_back(Arc::clone(&whose));
        self.waiting.insert(whose, VecDeque::from([item]));
    }

    /// Removes the next item among the namespaces for which `may` is true, and returns it with its namespace. After
    /// this, the other namespaces get their turns before this namespace gets one again.
    pub(crate) fn pop(&mut self, may: impl Fn(&str) -> bool) -> Option<(Arc<str>, T)> {
        let index = self.order.iter().position(|whose| may(whose))?;
        let whose = self.order.remove(index)?;
        let items = self.waiting.get_mut(&whose)?;
        let item = items.pop_front()?;
        if items.is_empty() {
            self.waiting.remove(&whose);
        } else {
            self.order.push_back(Arc::clone(&whose));
        }
        Some((whose, item))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// On whose behalf one of the [`Places`] for work is requested.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asker<'a> {
    /// Work on behalf of this namespace, for example on a Secret that is to be written.
    Namespace(&'a str),
    /// A request over HTTP. All HTTP requests together take turns like one namespace, and use at most half of the
    /// places.
    Inquiry,
}

/// The name under which HTTP requests take turns with the namespaces. No namespace has this name.
const INQUIRY: &str = "";

/// A limited number of places for work. Each free place is given to the waiting namespace whose turn it is.
#[derive(Clone)]
pub(crate) struct Places(Arc<Mutex<Free>>);

struct Free {
    places: usize,
    for_inquiries: usize,
    waiting: Turns<oneshot::Sender<Place>>,
}

/// A taken place. It is free again when this value is dropped.
pub(crate) struct Place {
    places: Places,
    is_inquiry: bool,
    is_taken: bool,
}

impl Places {
    pub(crate) fn new(number: usize) -> Self {
        Self(Arc::new(Mutex::new(Free {
            places: number,
            for_inquiries: (number / 2).max(1),
            waiting: Turns::default(),
        })))
    }

    /// Waits for a place.
    pub(crate) async fn take(&self, asker: Asker<'_>) -> Place {
        let (sender, receiver) = oneshot::channel();
        let whose = match asker {
            Asker::Namespace(namespace) => namespace,
            Asker::Inquiry => INQUIRY,
        };
        self.lock().waiting.push(whose, sender);
        self.hand_out();
        passes::in_turn("its turn among the namespaces", receiver)
            .await
            .expect("a waiting sender is dropped only after it has sent a `Place`")
    }

    fn hand_out(&self) {
        loop {
            let mut free = self.lock();
            if free.places == 0 {
                return;
            }
            let may_inquire = free.for_inquiries > 0;
            let Some((whose, waiting)) = free.waiting.pop(|whose| whose != INQUIRY || may_inquire) else { return };
            let is_inquiry = &*whose == INQUIRY;
            free.places -= 1;
            free.for_inquiries -= usize::from(is_inquiry);
            drop(free);
            let place = Place { places: self.clone(), is_inquiry, is_taken: true };
            if let Err(mut unwanted) = waiting.send(place) {
                // The place is given back here. If `unwanted` were only dropped, its drop would call this function
                // again, and thousands of waiting items whose callers are gone would cause thousands of nested calls.
                unwanted.give_back();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn give_back(&mut self) {
        self.is_taken = false;
        let mut free = self.places.lock();
        free.places += 1;
        free.for_inquiries += usize::from(self.is_inquiry);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_taken {
            self.give_back();
            self.places.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_in_turn() {
        let mut turns = Turns::default();
        for number in 0..3 {
            turns.push("a", format!("a{number}"));
        }
        turns.push("b", "b0".into());
        let mut given = Vec::new();
        while let Some((_, item)) = turns.pop(|_| true) {
            given.push(item);
            if given.len() == 1 {
                turns.push("c", "c0".into());
            }
        }
        assert_eq!(given, ["a0", "b0", "a1", "c0", "a2"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_may_not_keeps_the_turn() {
        let mut turns = Turns::default();
        turns.push("a", "a0");
        turns.push("b", "b0");
        turns.push("b", "b1");
        assert_eq!(turns.pop(|whose| whose != "a"), Some(("b".into(), "b0")));
        assert_eq!(turns.pop(|_| true), Some(("a".into(), "a0")));
        assert_eq!(turns.pop(|_| false), None);
        assert_eq!(turns.pop(|_| true), Some(("b".into(), "b1")));
    }

    #[tokio::test]
    async fn places_come_back_also_from_who_went_away() {
        let places = Places::new(2);
        let first = places.take(Asker::Inquiry).await;
        let _second = places.take(Asker::Namespace("a")).await;
        // Adds thousands of items whose callers no longer wait.
        for _ in 0..50_000 {
            let mut waiting = Box::pin(places.take(Asker::Namespace("a")));
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        drop(first);
        places.take(Asker::Namespace("b")).await;
    }

    #[tokio::test]
    async fn inquiries_have_half_of_the_places() {
        let places = Places::new(4);
        let taken = [places.take(Asker::Inquiry).await, places.take(Asker::Inquiry).await];
        let mut third = Box::pin(places.take(Asker::Inquiry));
        assert!(futures::poll!(&mut third).is_pending());
        let _secrets = [places.take(Asker::Namespace("a")).await, places.take(Asker::Namespace("a")).await];
        drop(taken);
        third.await;
    }
}
