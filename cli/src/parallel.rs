//! Does the same work on many items at the same time.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many processors this process may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The results of `work` for all items, in their order, on this number of threads at most. Each thread takes the next
/// item when it is free.
pub fn map<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads < 2 {
        return items.into_iter().map(work).collect();
    }
    let items = Mutex::new(items.into_iter().enumerate());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || std::iter::from_fn(next).map(|(place, item)| (place, work(item))).collect::<Vec<_>>();
    let mut done: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 2, 7, 2000] {
            let results = map(threads, (0..1000).collect(), |number| number * 2);
            assert_eq!(results, (0..1000).map(|number| number * 2).collect::<Vec<_>>(), "{threads}");
        }
        assert!(map(4, Vec::<u8>::new(), |byte| byte).is_empty());
    }

    #[test]
    fn so_many_are_worked_on_at_once() {
        let all = Barrier::new(3);
        // The barrier opens only when three threads wait at the same time.
        map(3, vec![(); 3], |()| all.wait());
    }

    #[test]
    #[should_panic(expected = "this one")]
    fn a_panic_is_passed_on() {
        map(2, (0..10).collect(), |number| assert!(number != 5, "this one"));
    }
}
