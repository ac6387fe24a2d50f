//! Limits the number of connections, and decides which connection is closed when a new one needs a place.
//!
//! It costs a client nothing to keep many idle connections open, and so to take the places of others. Therefore a new
//! connection never waits: if there is no place for it, the connection that has been idle for the longest time is
//! closed. A peer that has reached its own limit loses one of its own connections. If all places are taken, the peer
//! with the most connections loses one. A connection is never closed while the controller works on the answer to a
//! request.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// How many connections there may be at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The limit for all peers together.
    pub(super) all: usize,
    /// The limit for one peer.
    pub(super) per_peer: usize,
}

/// The connections of one listener. Clones share the connections.
#[derive(Clone)]
pub(super) struct Places {
    bounds: Bounds,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// The connections, in the order in which they were opened.
    connections: BTreeMap<u64, Connection>,
    /// Counts the changes of all connections, so that it is known which change was earlier.
    clock: u64,
}

struct Connection {
    peer: Peer,
    state: State,
    /// The value of [`Taken::clock`] when the connection came into this state.
    since: u64,
    end: CancellationToken,
}

/// What happens on a connection. If a connection must be closed, one whose state is earlier in this list is chosen
/// before one whose state is later.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum State {
    /// The client has not sent the whole headers of its next request.
    Idle,
    /// The client has not sent the whole body.
    Receiving,
    /// The client waits for the answer.
    Answering,
}

/// Whether there is a place for a new connection.
enum Room {
    Free,
    /// There is a place after this connection is closed.
    After(u64),
    None,
}

/// The addresses that count as one peer: a single IPv4 address, or an IPv6 network of 64 bits, because one client can
/// choose among all addresses of such a network.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Peer(IpAddr);

impl Peer {
    fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Arc::default() }
    }

    /// A place for a connection from `peer`. If necessary, another connection is closed for the new one. `None` if no
    /// connection can be closed.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Place> {
        let peer = Peer::new(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.room_for(peer, self.bounds) {
            Room::Free => {}
            Room::After(goes) => taken.connections.remove(&goes).expect("it was just found").end.cancel(),
            Room::None => return None,
        }
        let (id, end) = (taken.tick(), CancellationToken::new());
        taken.connections.insert(id, Connection { peer, state: State::Idle, since: id, end: end.clone() });
        Some(Place(Arc::new(Held { id, end, places: self.clone() })))
    }
}

impl Taken {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Whether there is a place for one more connection of `peer`.
    fn room_for(&self, peer: Peer, bounds: Bounds) -> Room {
        let mut of_peer: HashMap<Peer, usize> = HashMap::new();
        for connection in self.connections.values() {
            *of_peer.entry(connection.peer).or_default() += 1;
        }
        let own = of_peer.get(&peer).copied().unwrap_or_default();
        let is_full = self.connections.len() >= bounds.all;
        let waiting = self.connections.iter().filter(|(_, connection)| connection.state != State::Answering);
        let first_to_go = |(_, connection): &(&u64, &Connection)| (connection.state, connection.since);
        let goes = if own >= bounds.per_peer {
            waiting.filter(|(_, connection)| connection.peer == peer).min_by_key(first_to_go)
        } else if is_full {
            waiting.min_by_key(|found| (std::cmp::Reverse(of_peer[&found.1.peer]), first_to_go(found)))
        } else {
            return Room::Free;
        };
        goes.map_or(Room::None, |(id, _)| Room::After(*id))
    }
}

/// One of the limited number of places, which one connection takes. The place is free again when all clones of this
/// value are dropped.
#[derive(Clone)]
pub(super) struct Place(Arc<Held>);

struct Held {
    id: u64,
    end: CancellationToken,
    places: Places,
}

impl Place {
    /// Waits until the place is given to another connection.
    pub(super) async fn is_lost(&self) {
        self.0.end.cancelled().await;
    }

    /// Notes that the headers of a request have arrived, but not yet its body.
    pub(super) fn receives(&self) {
        self.is(State::Receiving);
    }

    /// Notes that a whole request has arrived.
    pub(super) fn answers(&self) {
        self.is(State::Answering);
    }

    /// Notes that the answer is ready, and the connection is idle again.
    pub(super) fn idles(&self) {
        self.is(State::Idle);
    }

    fn is(&self, state: State) {
        let mut taken = self.0.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = taken.tick();
        if let Some(connection) = taken.connections.get_mut(&self.0.id) {
            (connection.state, connection.since) = (state, now);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.taken.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, per_peer: usize) -> Places {
        Places::new(Bounds { all, per_peer })
    }

    fn peer(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn lost(places: &[&Place]) -> Vec<bool> {
        places.iter().map(|place| place.0.end.is_cancelled()).collect()
    }

    #[test]
    fn a_newcomer_takes_the_place_that_was_idle_for_the_longest() {
        let all = places(3, 3);
        let [first, second, third] = [(); 3].map(|()| all.take(peer(1)).unwrap());
        first.answers();
        first.idles();
        let fourth = all.take(peer(1)).unwrap();
        assert_eq!(lost(&[&first, &second, &third, &fourth]), [false, true, false, false]);
        let other = all.take(peer(2)).unwrap();
        assert_eq!(lost(&[&first, &third, &fourth, &other]), [false, true, false, false]);
        drop((first, fourth, other));
        assert!(all.taken.lock().unwrap().connections.is_empty(), "a place is free when its connection is gone");
    }

    #[test]
    fn one_peer_cannot_take_all() {
        let all = places(5, 2);
        let other = all.take(peer(2)).unwrap();
        let own: Vec<Place> = (0..10).map(|_| all.take(peer(1)).unwrap()).collect();
        assert_eq!(
            lost(&own.iter().collect::<Vec<_>>()),
            [true, true, true, true, true, true, true, true, false, false]
        );
        assert_eq!(lost(&[&other]), [false], "it takes its own");
    }

    #[test]
    fn of_many_peers_the_one_with_the_most_gives_way() {
        let all = places(4, 3);
        let single = all.take(peer(1)).unwrap();
        let [a, b, c] = [(); 3].map(|()| all.take(peer(2)).unwrap());
        let new = all.take(peer(3)).unwrap();
        assert_eq!(lost(&[&single, &a, &b, &c, &new]), [false, true, false, false, false]);
    }

    #[test]
    fn an_answer_is_not_given_up() {
        let all = places(2, 2);
        let [a, b] = [(); 2].map(|()| all.take(peer(1)).unwrap());
        a.answers();
        b.receives();
        let c = all.take(peer(2)).unwrap();
        assert_eq!(lost(&[&a, &b, &c]), [false, true, false], "a body that is still to come is");
        c.answers();
        assert!(all.take(peer(3)).is_none());
        a.idles();
        assert!(all.take(peer(3)).is_some());
    }

    #[test]
    fn a_network_of_one_client_is_one_peer() {
        let one = |text: &str| Peer::new(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8:0:0:ffff::2"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:10.0.0.1"), one("10.0.0.1"));
        assert_ne!(one("10.0.0.1"), one("10.0.0.2"));
    }
}
