//! Steps of work, one after the other, that can be done on another thread while the next is prepared.

use tokio::task::JoinSet;

use crate::run::RunError;
use crate::tasks::let_go_of_last_task;

/// What is worked with, step by step. Dropped, it stops the step that goes on.
pub(super) struct Steps<W> {
    /// `None` while a step goes on elsewhere.
    worker: Option<W>,
    elsewhere: JoinSet<Result<W, RunError>>,
}

impl<W: Send + 'static> Steps<W> {
    pub(super) fn new(worker: W) -> Self {
        Steps { worker: Some(worker), elsewhere: JoinSet::new() }
    }

    /// Does a step once the one before is done: here, or, where a thread has nothing to do, on that, while whoever asks goes on.
    /// An error of a step done there comes with the next, or at the end.
    pub(super) async fn step<F>(&mut self, thread_is_free: bool, step: impl FnOnce(W) -> F) -> Result<(), RunError>
    where
        F: Future<Output = Result<W, RunError>> + Send + 'static,
    {
        let worker = self.done().await?;
        if !thread_is_free {
            self.worker = Some(step(worker).await?);
            return Ok(());
        }
        self.elsewhere.spawn(step(worker));
        let_go_of_last_task();
        Ok(())
    }

    /// What was worked with, once the last step is done.
    pub(super) async fn finish(mut self) -> Result<W, RunError> {
        self.done().await
    }

    async fn done(&mut self) -> Result<W, RunError> {
        match self.worker.take() {
            Some(worker) => Ok(worker),
            None => self.elsewhere.join_next().await.and_then(Result::ok).ok_or(RunError::Worker)?,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn steps_are_done_in_order_wherever_they_are_done() {
        let mut steps = Steps::new(Vec::new());
        for number in 0..100 {
            let step = |mut numbers: Vec<usize>| async move {
                numbers.push(number);
                Ok(numbers)
            };
            steps.step(number % 3 > 0, step).await.unwrap();
        }
        assert_eq!(steps.finish().await.unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_a_thread_that_is_free_a_step_goes_on_while_the_next_is_prepared() {
        let prepared = tokio::spawn(async {
            let (sender, receiver) = mpsc::channel();
            let mut steps = Steps::new(0);
            let step = move |begun| async move {
                // Blocks its thread until the other has gone on.
                receiver.recv().map_err(|_| RunError::Worker)?;
                Ok(begun + 1)
            };
            steps.step(true, step).await.unwrap();
            sender.send(()).unwrap();
            steps.finish().await.unwrap()
        });
        assert_eq!(prepared.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn an_error_comes_with_the_next_step_or_at_the_end() {
        for thread_is_free in [false, true] {
            let mut steps = Steps::new(());
            let first = steps.step(thread_is_free, |()| async { Err(RunError::BrokenPipe) }).await;
            assert_eq!(first.is_err(), !thread_is_free);
            if thread_is_free {
                assert!(matches!(steps.finish().await, Err(RunError::BrokenPipe)));
            }
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let mut steps = Steps::new(());
        steps.step(true, |()| async { panic!("on purpose") }).await.unwrap();
        assert!(matches!(steps.finish().await, Err(RunError::Worker)));
    }
}
