//! A stage that shows something harmless in place of every hostile input.

use async_trait::async_trait;
use plyfold_conformance::hostile::{Outcome, rows};
use plyfold_conformance::stages::Memory;
use plyfold_conformance::{Stage, Staged, Subject, samples};

struct Sanitised;

#[async_trait]
impl Stage for Sanitised {
    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        let sample = samples::variants();
        Memory.open(&[Staged { reference: images[0].reference.clone(), sample: &sample }]).await
    }
}

#[test]
fn every_hostile_row_notices() {
    for row in rows() {
        assert!(!row.holds(&Sanitised), "{} must get {:?}", row.name, row.outcome);
        assert!(!matches!(row.outcome, Outcome::Refused([])), "{}", row.name);
    }
}
