//! What each kind of fixture leaves unjudged, against the rules that there are.

use crate::durability::{self, DurabilityFixture};
use crate::rule::JudgedFixture;
use crate::{
    ArchiveFixture, CacheFixture, DiskFixture, Fixture, HttpFixture, LayoutFixture, MaterializerFixture,
    hostile, rules,
};

impl JudgedFixture for dyn Fixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        Fixture::not_judged(self)
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        Fixture::exceptions(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::registry().any(|rule| rule.name == name) || hostile::rows().any(|row| row.name == name)
    }
}

impl JudgedFixture for dyn ArchiveFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        ArchiveFixture::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::archive().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn MaterializerFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        MaterializerFixture::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::materializer().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn DiskFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        self.disk_not_judged()
    }

    fn has_rule(name: &str) -> bool {
        rules::disk().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn CacheFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        CacheFixture::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::cache().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn LayoutFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        LayoutFixture::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::layout().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn HttpFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        HttpFixture::not_judged(self)
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        HttpFixture::exceptions(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::http().any(|rule| rule.name == name)
    }
}

impl JudgedFixture for dyn DurabilityFixture + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        DurabilityFixture::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        durability::tests().any(|test| test.name == name)
    }
}
