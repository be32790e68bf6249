//! Whose turn it is: a blob that is asked for again was not good enough the first time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Request;
use reqwest::header::RANGE;

/// How long an answer is remembered: longer than the pause between two attempts.
const MEMORY: Duration = Duration::from_secs(120);
/// Answers that are remembered; beyond this all are forgotten.
const ANSWERS: usize = 4096;

/// Which endpoint has answered for which part of a blob, lately.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Part, (usize, Instant)>>);

/// A blob's path and the range's last byte. Who goes on where a transfer broke asks for the same end again; ranges
/// that are read side by side have different ends.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Part(String, Option<String>);

impl Part {
    pub(crate) fn of(request: &Request) -> Self {
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let end = range.and_then(|range| range.rsplit_once('-')).map(|(_, end)| end.to_owned());
        Self(request.url().path().to_owned(), end)
    }
}

impl Turns {
    /// The first of `count` endpoints to be asked: the one after that which answered last.
    pub(crate) fn first(&self, part: &Part, count: usize) -> usize {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (_, when)| when.elapsed() < MEMORY);
        // What broke may have been asked for whole.
        let answer = answers.get(part).or_else(|| answers.get(&Part(part.0.clone(), None)));
        answer.map_or(0, |(last, _)| (last + 1).min(count.saturating_sub(1)))
    }

    /// Remembers who has answered.
    pub(crate) fn answered(&self, part: Part, endpoint: usize) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(part, (endpoint, Instant::now()));
    }
}
