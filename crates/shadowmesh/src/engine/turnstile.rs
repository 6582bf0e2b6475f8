//! Batches are worked on side by side and delivered in the order they came.
//!
//! One thread at a time stands in the [`Entrance`]: it waits for the sockets and receives a batch, for
//! which it draws a [`Ticket`]; then it makes room for the next. Opening and checking, the expensive
//! part, every thread does at its own pace. Only for writing to the device does it wait for its turn. So
//! the packets of a flow, which come over one socket, leave in the order they came, whichever threads
//! they pass; and one thread waits in `poll`, so a datagram wakes one thread and not all.
//!
//! Nothing here can be forgotten: a ticket that is dropped, also by an error or a panic, waits for its
//! turn and passes it on, and a thread that leaves the entrance lets in the next. Nobody who holds a
//! ticket waits for the entrance, so everybody's turn comes. With one thread both locks are always
//! free, and cost some ten nanoseconds a batch.
//!
//! This file is compiled a second time against a model checker (`model`): it must take its
//! primitives from `super::sync`.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The way in and the way out, shared by all receivers.
pub struct Turnstile {
    /// The number of the next ticket. Who holds the lock stands in the entrance.
    entrance: Mutex<u64>,
    exit: Mutex<Exit>,
    /// Where the holder of ticket `n` waits: `n` modulo the number of threads. No two share a place,
    /// because each thread holds one ticket at most.
    places: Box<[Condvar]>,
}

struct Exit {
    /// The ticket whose turn it is.
    turn: u64,
    /// How many wait, so that nobody is woken by a system call when nobody sleeps.
    waiting: usize,
}

impl Turnstile {
    /// For that many threads at most.
    pub fn new(threads: usize) -> Self {
        Self {
            entrance: Mutex::new(0),
            exit: Mutex::new(Exit {
                turn: 0,
                waiting: 0,
            }),
            places: (0..threads.max(1)).map(|_| Condvar::new()).collect(),
        }
    }

    /// Waits until nobody else stands in the entrance. Only for a thread without a ticket.
    pub fn enter(&self) -> Entrance<'_> {
        Entrance {
            turnstile: self,
            next: self.entrance.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn exit(&self) -> MutexGuard<'_, Exit> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, ticket: u64) -> &Condvar {
        &self.places[(ticket % self.places.len() as u64) as usize]
    }
}

/// The right to receive.
pub struct Entrance<'t> {
    turnstile: &'t Turnstile,
    next: MutexGuard<'t, u64>,
}

impl<'t> Entrance<'t> {
    /// The ticket for what was received while standing here.
    pub fn ticket(&mut self) -> Ticket<'t> {
        let number = *self.next;
        *self.next += 1;
        Ticket {
            turnstile: self.turnstile,
            number,
        }
    }
}

/// The place of a batch in the order of delivery. Dropping it is passing on the turn.
#[must_use]
pub struct Ticket<'t> {
    turnstile: &'t Turnstile,
    number: u64,
}

impl Ticket<'_> {
    /// Waits until everything before it was delivered. HOT PATH, once for each batch.
    pub fn wait(&self) {
        drop(self.turn());
    }

    fn turn(&self) -> MutexGuard<'_, Exit> {
        let mut exit = self.turnstile.exit();
        while exit.turn != self.number {
            exit.waiting += 1;
            let place = self.turnstile.place(self.number);
            exit = place.wait(exit).unwrap_or_else(PoisonError::into_inner);
            exit.waiting -= 1;
        }
        exit
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut exit = self.turn();
        exit.turn += 1;
        let is_awaited = exit.waiting > 0;
        drop(exit);
        if is_awaited {
            self.turnstile.place(self.number + 1).notify_one();
        }
    }
}
