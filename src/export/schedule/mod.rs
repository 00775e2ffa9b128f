//! Exports at their times: cron slots in a zone, a clock that can be injected, and the scheduler that runs what is due.

mod clock;
mod due;
mod scheduler;
mod slots;

pub use clock::{Clock, SystemClock};
pub use scheduler::{Event, Scheduler};
pub use slots::Schedule;
