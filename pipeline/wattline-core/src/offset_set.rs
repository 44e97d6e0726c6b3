//! A set of offsets that is small where few are missing: a bit for each at most, and next to nothing for a stretch that is whole.
//!
//! Offsets are divided into chunks of 65,536. A chunk begins as a sorted list, turns into bits when the list would be as large,
//! and is only a number once nothing in it is missing. That is the layout of roaring bitmaps (Chambi, Lemire, Kaser, Godin:
//! Better bitmap performance with Roaring bitmaps, 2016), with the full chunk in place of their runs.

use std::collections::BTreeMap;

const PLACE_BITS: u32 = 16;
/// Offsets of a chunk.
const PLACES: usize = 1 << PLACE_BITS;
/// A list of so many places is as large as the bits of the whole chunk.
const LIST_MAX: usize = PLACES / 16;

/// A set of offsets.
#[derive(Debug, Clone, Default)]
pub struct OffsetSet {
    /// By the number of the chunk: offset / 65,536, rounded down.
    chunks: BTreeMap<i64, Chunk>,
    len: u64,
}

#[derive(Debug, Clone)]
enum Chunk {
    /// Places within the chunk, ascending.
    List(Vec<u16>),
    Bits {
        words: Box<[u64]>,
        filled: usize,
    },
    Full,
}

/// Place of an offset within its chunk: its lowest bits.
fn place(offset: i64) -> u16 {
    (offset & (PLACES as i64 - 1)) as u16
}

impl OffsetSet {
    /// Puts an offset in; false if it is there already.
    pub fn insert(&mut self, offset: i64) -> bool {
        let chunk = self.chunks.entry(offset >> PLACE_BITS).or_insert_with(|| Chunk::List(Vec::new()));
        let is_new = chunk.insert(place(offset));
        self.len += u64::from(is_new);
        is_new
    }

    /// Puts all offsets of another set in.
    pub fn insert_all(&mut self, other: &Self) {
        for (first, last) in other.runs() {
            for offset in first..=last {
                self.insert(offset);
            }
        }
    }

    /// Whether an offset is in it.
    pub fn contains(&self, offset: i64) -> bool {
        self.chunks.get(&(offset >> PLACE_BITS)).is_some_and(|chunk| chunk.contains(place(offset)))
    }

    /// How many offsets are in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lowest offset.
    pub fn first(&self) -> Option<i64> {
        self.runs().next().map(|(first, _)| first)
    }

    /// The highest offset.
    pub fn last(&self) -> Option<i64> {
        let (number, chunk) = self.chunks.last_key_value()?;
        chunk.runs().last().map(|(_, last)| (number << PLACE_BITS) + i64::from(*last))
    }

    /// How many offsets between the first and the last are not in it.
    pub fn missing(&self) -> u64 {
        let spanned = self.first().zip(self.last()).map_or(0, |(first, last)| last.abs_diff(first) + 1);
        spanned - self.len
    }

    /// Stretches without hole, first and last offset of each, ascending; two may touch at the border of a chunk.
    pub fn runs(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.chunks.iter().flat_map(|(number, chunk)| {
            let base = number << PLACE_BITS;
            chunk.runs().into_iter().map(move |(first, last)| (base + i64::from(first), base + i64::from(last)))
        })
    }

    /// Stretches between the first and the last offset that are not in it, first and last of each, ascending.
    pub fn holes(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let mut expected: Option<i64> = None;
        self.runs().filter_map(move |(first, last)| {
            let hole = expected.filter(|expected| *expected < first).map(|expected| (expected, first - 1));
            expected = Some(last.saturating_add(1));
            hole
        })
    }
}

impl Chunk {
    fn insert(&mut self, place: u16) -> bool {
        let is_new = match self {
            Self::Full => false,
            Self::List(places) => match places.binary_search(&place) {
                Ok(_) => false,
                Err(at) => {
                    places.insert(at, place);
                    true
                }
            },
            Self::Bits { words, filled } => {
                let (word, bit) = (usize::from(place) / 64, 1_u64 << (place % 64));
                let is_new = words[word] & bit == 0;
                words[word] |= bit;
                *filled += usize::from(is_new);
                is_new
            }
        };
        if is_new {
            self.settle();
        }
        is_new
    }

    /// Takes the form that is smallest for what it holds.
    fn settle(&mut self) {
        let next = match self {
            Self::List(places) if places.len() > LIST_MAX => {
                let mut words = vec![0_u64; PLACES / 64].into_boxed_slice();
                for place in places.iter() {
                    words[usize::from(*place) / 64] |= 1_u64 << (place % 64);
                }
                Self::Bits { words, filled: places.len() }
            }
            Self::Bits { filled, .. } if *filled == PLACES => Self::Full,
            Self::List(_) | Self::Bits { .. } | Self::Full => return,
        };
        *self = next;
    }

    fn contains(&self, place: u16) -> bool {
        match self {
            Self::Full => true,
            Self::List(places) => places.binary_search(&place).is_ok(),
            Self::Bits { words, .. } => words[usize::from(place) / 64] >> (place % 64) & 1 == 1,
        }
    }

    /// Stretches of places without hole.
    fn runs(&self) -> Vec<(u16, u16)> {
        match self {
            Self::Full => vec![(0, u16::MAX)],
            Self::List(places) => runs_of(places.iter().copied()),
            Self::Bits { .. } => runs_of((0..=u16::MAX).filter(|place| self.contains(*place))),
        }
    }
}

fn runs_of(places: impl Iterator<Item = u16>) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((_, last)) if u32::from(*last) + 1 == u32::from(place) => *last = place,
            _ => runs.push((place, place)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_stretch_is_nothing_but_its_chunks() {
        let mut set = OffsetSet::default();
        // In an order in which no chunk is filled from its beginning.
        for offset in (0..200_000).rev().step_by(2).chain((0..200_000).step_by(2)) {
            assert!(set.insert(offset), "{offset}");
        }
        assert!(set.chunks.values().take(3).all(|chunk| matches!(chunk, Chunk::Full)));
        assert_eq!((set.len(), set.first(), set.last(), set.missing()), (200_000, Some(0), Some(199_999), 0));
        assert_eq!(set.holes().next(), None);
        assert!(!set.insert(70_000) && set.contains(199_999) && !set.contains(200_000) && !set.contains(-1));
    }

    #[test]
    fn holes_are_told_across_chunks() {
        let mut set = OffsetSet::default();
        let mut other = OffsetSet::default();
        assert_eq!((set.missing(), set.first(), set.last()), (0, None, None));
        (10..65_536).for_each(|offset| assert!(set.insert(offset)));
        (140_000..140_010).chain([65_536]).for_each(|offset| assert!(other.insert(offset)));
        set.insert_all(&other);
        assert_eq!(set.holes().collect::<Vec<_>>(), [(65_537, 139_999)]);
        assert_eq!(set.missing(), 139_999 - 65_536);
    }

    proptest! {
        #[test]
        fn it_is_a_set(offsets in prop::collection::vec(-70_000_i64..140_000, 0..400), dense in -5_000_i64..5_000) {
            let mut set = OffsetSet::default();
            let mut model = BTreeSet::new();
            // Enough neighbours for a chunk of bits.
            for offset in offsets.into_iter().chain((dense..dense + 10_000).step_by(2)) {
                prop_assert_eq!(set.insert(offset), model.insert(offset));
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.first(), model.first().copied());
            prop_assert_eq!(set.last(), model.last().copied());
            let told: Vec<i64> = set.runs().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(told, model.iter().copied().collect::<Vec<_>>());
            let missing: u64 = set.holes().map(|(first, last)| last.abs_diff(first) + 1).sum();
            prop_assert_eq!(missing, set.missing());
        }
    }
}
