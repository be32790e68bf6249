//! What each kind of stage leaves unjudged, against the rules that there are.

use crate::rule::JudgedStage;
use crate::{CacheStage, HttpStage, LayoutStage, MaterializerStage, Stage, hostile, rules};

impl JudgedStage for dyn Stage + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        Stage::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::registry().any(|rule| rule.name == name) || hostile::rows().any(|row| row.name == name)
    }
}

impl JudgedStage for dyn MaterializerStage + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        MaterializerStage::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::materializer().any(|rule| rule.name == name)
    }
}

impl JudgedStage for dyn CacheStage + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        CacheStage::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::cache().any(|rule| rule.name == name)
    }
}

impl JudgedStage for dyn LayoutStage + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        LayoutStage::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::layout().any(|rule| rule.name == name)
    }
}

impl JudgedStage for dyn HttpStage + '_ {
    fn not_judged(&self) -> &'static [&'static str] {
        HttpStage::not_judged(self)
    }

    fn has_rule(name: &str) -> bool {
        rules::http().any(|rule| rule.name == name)
    }
}
