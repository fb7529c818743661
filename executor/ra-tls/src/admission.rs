//! Who may begin a handshake: counts of connections and a token bucket per peer. Pure; the time is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Limits on strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all, those shaking hands included.
    pub connections: usize,
    /// Connections of one peer.
    pub connections_per_peer: usize,
    /// Handshakes at a time, in all.
    pub handshakes: usize,
    /// Handshakes at a time, of one peer.
    pub handshakes_per_peer: usize,
    /// Handshakes that a peer may begin at once after a rest.
    pub burst_per_peer: u32,
    /// Handshakes that a peer regains each second.
    pub handshakes_per_peer_per_s: u32,
    /// Peers remembered.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_peer: 256,
            handshakes: 256,
            handshakes_per_peer: 16,
            burst_per_peer: 64,
            handshakes_per_peer_per_s: 8,
            peers: 8_192,
        }
    }
}

/// Turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// All places are taken.
    #[error("worker: all {limit} connections are taken; the client may try later, or another worker")]
    Full {
        /// How many there are.
        limit: usize,
    },
    /// All places for handshakes are taken.
    #[error("worker: {limit} handshakes are under way; the client may try again at once")]
    Busy {
        /// How many there may be.
        limit: usize,
    },
    /// The peer has its share.
    #[error("client: it has {limit} connections already; it must use them, or close some")]
    PeerFull {
        /// How many it may have.
        limit: usize,
    },
    /// The peer shakes hands too often.
    #[error("client: it begins handshakes faster than allowed; it must wait, and keep its connections")]
    PeerTooFast,
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// Of this address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

/// The counts.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    peers: HashMap<Peer, Entry>,
    connections: usize,
    handshakes: usize,
}

impl Admission {
    /// Nobody yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, peers: HashMap::new(), connections: 0, handshakes: 0 }
    }

    /// Takes a place for a connection that begins its handshake at `now_ms` of a clock that never goes back.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing was taken, but what the bucket of a peer that is too fast holds stays spent.
    pub fn enter(&mut self, peer: Peer, now_ms: u64) -> Result<(), Refusal> {
        let limits = self.limits;
        if self.connections >= limits.connections {
            return Err(Refusal::Full { limit: limits.connections });
        }
        if self.handshakes >= limits.handshakes {
            return Err(Refusal::Busy { limit: limits.handshakes });
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= limits.peers.max(1) {
            self.forget(now_ms)?;
        }
        let entry = self.peers.entry(peer).or_insert(Entry {
            connections: 0,
            handshakes: 0,
            tokens_milli: limits.full_milli(),
            refilled_ms: now_ms,
        });
        entry.refill(&limits, now_ms);
        if entry.connections >= limits.connections_per_peer {
            return Err(Refusal::PeerFull { limit: limits.connections_per_peer });
        }
        if entry.handshakes >= limits.handshakes_per_peer || entry.tokens_milli < TOKEN_MILLI {
            return Err(Refusal::PeerTooFast);
        }
        entry.tokens_milli -= TOKEN_MILLI;
        entry.connections += 1;
        entry.handshakes += 1;
        self.connections += 1;
        self.handshakes += 1;
        Ok(())
    }

    /// The handshake of one of the peer's connections is over.
    pub fn shaken(&mut self, peer: Peer) {
        if let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.handshakes > 0) {
            entry.handshakes -= 1;
            self.handshakes -= 1;
        }
    }

    /// One of the peer's connections, whose handshake is over, is closed.
    pub fn leave(&mut self, peer: Peer) {
        if let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.connections > entry.handshakes) {
            entry.connections -= 1;
            self.connections -= 1;
        }
    }

    /// Connections in all.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Peers remembered.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Makes room: peers that are as good as new, else the one without connections that has rested longest.
    fn forget(&mut self, now_ms: u64) -> Result<(), Refusal> {
        let limits = self.limits;
        self.peers.retain(|_, entry| {
            entry.refill(&limits, now_ms);
            entry.connections > 0 || entry.tokens_milli < limits.full_milli()
        });
        if self.peers.len() < limits.peers.max(1) {
            return Ok(());
        }
        let idle = self.peers.iter().filter(|(_, entry)| entry.connections == 0);
        let rested = idle.max_by_key(|(_, entry)| entry.tokens_milli).map(|(peer, _)| *peer);
        match rested.and_then(|peer| self.peers.remove(&peer)) {
            Some(_) => Ok(()),
            None => Err(Refusal::Full { limit: limits.connections.min(limits.peers) }),
        }
    }
}

#[derive(Debug)]
struct Entry {
    connections: usize,
    handshakes: usize,
    tokens_milli: u64,
    refilled_ms: u64,
}

/// A handshake costs this.
const TOKEN_MILLI: u64 = 1_000;

impl Limits {
    fn full_milli(&self) -> u64 {
        u64::from(self.burst_per_peer.max(1)) * TOKEN_MILLI
    }
}

impl Entry {
    fn refill(&mut self, limits: &Limits, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms);
        let gained = elapsed_ms.saturating_mul(u64::from(limits.handshakes_per_peer_per_s));
        self.tokens_milli = self.tokens_milli.saturating_add(gained).min(limits.full_milli());
        self.refilled_ms = self.refilled_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn peer(number: u8) -> Peer {
        Peer::of(IpAddr::from([10, 0, 0, number]))
    }

    const SMALL: Limits = Limits {
        connections: 6,
        connections_per_peer: 3,
        handshakes: 4,
        handshakes_per_peer: 2,
        burst_per_peer: 4,
        handshakes_per_peer_per_s: 2,
        peers: 3,
    };

    #[test]
    fn each_limit_is_met_where_it_says() {
        let mut gate = Admission::new(SMALL);
        gate.enter(peer(1), 0).unwrap();
        gate.enter(peer(1), 0).unwrap();
        assert_eq!(gate.enter(peer(1), 0), Err(Refusal::PeerTooFast));
        gate.shaken(peer(1));
        gate.enter(peer(1), 0).unwrap();
        gate.shaken(peer(1));
        assert_eq!(gate.enter(peer(1), 0), Err(Refusal::PeerFull { limit: 3 }));
        gate.enter(peer(2), 0).unwrap();
        gate.enter(peer(2), 0).unwrap();
        gate.enter(peer(3), 0).unwrap();
        assert_eq!(gate.enter(peer(3), 0), Err(Refusal::Full { limit: 6 }));
        // Peer 1 leaves with one token spent less than its burst.
        gate.shaken(peer(1));
        gate.leave(peer(1));
        gate.enter(peer(1), 0).unwrap();
        gate.shaken(peer(1));
        gate.leave(peer(1));
        assert_eq!(gate.enter(peer(1), 499), Err(Refusal::PeerTooFast));
        gate.enter(peer(1), 500).unwrap();
    }

    #[test]
    fn handshakes_in_all_are_limited_and_a_network_of_ipv6_is_one_peer() {
        let mut gate = Admission::new(Limits { handshakes: 1, ..SMALL });
        gate.enter(peer(1), 0).unwrap();
        assert_eq!(gate.enter(peer(2), 0), Err(Refusal::Busy { limit: 1 }));
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), peer(1));
    }

    proptest! {
        /// Against a list of what is open.
        #[test]
        fn counts_stay_true_and_bounded(events in prop::collection::vec((0_u8..3, 0_u8..6, 0_u64..300), 1..200)) {
            let mut gate = Admission::new(SMALL);
            let (mut now_ms, mut shaking, mut open) = (0, Vec::new(), Vec::new());
            for (event, number, wait_ms) in events {
                now_ms += wait_ms;
                match event {
                    0 => if gate.enter(peer(number), now_ms).is_ok() { shaking.push(number) },
                    1 => if let Some(at) = shaking.iter().position(|other| *other == number) {
                        gate.shaken(peer(number));
                        open.push(shaking.swap_remove(at));
                    },
                    _ => if let Some(at) = open.iter().position(|other| *other == number) {
                        gate.leave(peer(number));
                        open.swap_remove(at);
                    },
                }
                prop_assert_eq!(gate.connections(), shaking.len() + open.len());
                prop_assert!(gate.connections() <= SMALL.connections && shaking.len() <= SMALL.handshakes);
                prop_assert!(gate.peers() <= SMALL.peers);
                let of = |list: &[u8]| list.iter().filter(|other| **other == number).count();
                prop_assert!(of(&shaking) <= SMALL.handshakes_per_peer);
                prop_assert!(of(&shaking) + of(&open) <= SMALL.connections_per_peer);
            }
        }
    }
}
