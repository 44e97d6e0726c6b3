//! One thread for everything: gives the parts of all processes of a world their turns, one at a time.
//!
//! The coordinators are tasks of one async runtime with a clock that stands still. When none of them can go on, the runtime is about to
//! park, and comes here: one part, drawn by the seed among those that have something to do, has one turn, and whatever the coordinators make
//! of it comes before the next. Only when no part has anything to do the clock moves on, to the next moment for which anything waits.
//!
//! ```text
//! coordinators wait ─▶ a part has something to do ─ yes ─▶ one turn ─▶ coordinators go on, if it was what they waited for
//!                                  └ no ─▶ the clock goes to the next timer: a tick, a store that is slow, the next poll of a source
//! ```
//! Workers have something to do while their queues are not empty. Sources are polled at moments that the seed draws. So messages wait in
//! queues as long as the seed wants, the queues of workers fill up while a store is slow, and sources are held back then.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::script::Dice;
use crate::Result;
use crate::threads::{Part, Role, Threads, Turn};

struct Given {
    role: Role,
    part: Box<dyn Part>,
    /// A source is not polled before.
    due: Instant,
}

struct State {
    dice: Dice,
    parts: Vec<Given>,
    /// How long sources rest between two polls, the unit of what is drawn.
    rest: Duration,
}

/// The turns of all parts of a world.
pub(super) struct Turns {
    pub(super) seed: u64,
    state: Mutex<State>,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Turns {
    pub(super) fn new(seed: u64, rest: Duration) -> Arc<Self> {
        let state = Mutex::new(State { dice: Dice::new(seed), parts: Vec::new(), rest });
        Arc::new(Self { seed, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called when nothing else can go on.
    pub(super) fn give_one(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let State { dice, parts, rest } = &mut *state;
        let first = match parts.len() {
            0 => return,
            count => usize::try_from(dice.below(count as u64)).unwrap_or_default(),
        };
        for at in (first..parts.len()).chain(0..first) {
            let given = &mut parts[at];
            if given.due > now {
                continue;
            }
            match (given.role, given.part.turn(false)) {
                (Role::Worker(_), Turn::Nothing) => continue,
                (Role::Worker(_), Turn::Done) => drop(tokio::spawn(std::future::ready(()))),
                (Role::Source(_), turn @ (Turn::Done | Turn::Nothing)) => {
                    let rests = if turn == Turn::Done { [0, 1, 1, 2] } else { [1, 1, 2, 4] };
                    given.due = now + *rest * rests[usize::try_from(dice.below(4)).unwrap_or_default()];
                    // The clock must not pass that moment.
                    drop(tokio::spawn(tokio::time::sleep_until(given.due)));
                }
                (_, Turn::Over) => {
                    drop(parts.remove(at));
                    drop(tokio::spawn(std::future::ready(())));
                }
            }
            // A task that was spawned keeps the runtime from parking: it comes here again before the clock moves.
            return;
        }
    }

    fn empty_queues(&self) {
        let mut state = self.state();
        state.parts.retain_mut(|given| {
            let mut turn = Turn::Nothing;
            while matches!(given.role, Role::Worker(_)) {
                turn = given.part.turn(false);
                if turn != Turn::Done {
                    break;
                }
            }
            turn != Turn::Over
        });
    }
}

impl Threads for Turns {
    fn begin(&self, role: Role, part: Box<dyn Part>) -> Result<()> {
        self.state().parts.push(Given { role, part, due: Instant::now() });
        Ok(())
    }

    fn aside(&self, work: Box<dyn FnOnce() + Send>) {
        // It may be to wait for a worker to have room.
        self.empty_queues();
        work();
    }
}
