//! What a check of stored things finds to be untrue, in words for whoever has to act on it.

use serde::Serialize;

/// Problems of one place that are kept; of the others it is said how many there are.
const KEPT: usize = 50;

/// Something that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where it is: a chain or a table.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What that means for rows, state and alerts.
    pub means: String,
    /// What to do about it.
    pub action: String,
}

/// What problems of one kind mean, and what to do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// What it means for rows, state and alerts.
    pub means: &'static str,
    /// What to do.
    pub action: &'static str,
}

/// The problems of one place; a place that is wrong throughout does not fill the memory with them.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    place: String,
    found: Vec<Problem>,
    more: u64,
}

impl Problems {
    /// None yet.
    pub fn of(place: impl Into<String>) -> Self {
        Self { place: place.into(), ..Self::default() }
    }

    /// Notes one.
    pub fn add(&mut self, what: impl Into<String>, advice: Advice) {
        if self.found.len() == KEPT {
            self.more += 1;
            return;
        }
        self.found.push(Problem {
            place: self.place.clone(),
            what: what.into(),
            means: advice.means.to_owned(),
            action: advice.action.to_owned(),
        });
    }

    /// The first of them, and how many more there are.
    pub fn finish(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.found.push(Problem {
                place: self.place,
                what: format!("and {} more like these", self.more),
                means: "it is wrong throughout".to_owned(),
                action: "begin with the first ones".to_owned(),
            });
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_wrong_throughout_is_told_in_few_words() {
        let advice = Advice { means: "much", action: "something" };
        let mut problems = Problems::of("table `t`");
        (0..KEPT + 7).for_each(|n| problems.add(format!("number {n}"), advice));
        let told = problems.finish();
        assert_eq!(told.len(), KEPT + 1);
        assert_eq!((told[3].place.as_str(), told[3].what.as_str()), ("table `t`", "number 3"));
        assert_eq!(told[KEPT].what, "and 7 more like these");
    }
}
