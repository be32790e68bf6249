//! A fixture that shows something harmless in place of every hostile input.

use async_trait::async_trait;
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::hostile::{Outcome, rows};
use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage, samples};

struct Sanitised(fn() -> samples::Sample);

#[async_trait]
impl Fixture for Sanitised {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        let sample = (self.0)();
        Memory.open(&[FixtureImage { reference: images[0].reference.clone(), sample: &sample }]).await
    }
}

#[test]
fn every_hostile_row_notices() {
    for row in rows() {
        let harmless = match row.outcome {
            // The wanted platform is arm/v7: an image for it, or none.
            Outcome::Refused(_) | Outcome::WrongPlatform => samples::variants,
            Outcome::Image(_) => samples::image,
        };
        assert!(!row.holds(&Sanitised(harmless)), "{} must get {:?}", row.name, row.outcome);
    }
}
