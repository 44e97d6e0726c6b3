//! Numbers for group keys, so that many windows find their groups without hashing the key again.
//!
//! States that see the same rows give and ask for the same: arrays of keys that are the same in memory are numbered once, and the keys of
//! the same numbers are put together, and in order, once. So what fifty states of one key cost beyond one is their accumulators.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::exec_datafusion_err;
use datafusion::common::utils::normalize_float_zero;
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::key_sequence::{KeySequence, LookUps};
use crate::operators::spill::key_order;

/// Answers that are kept: as many as the windows that are open at the same time, and some.
const ANSWERS_MAX: usize = 16;

/// Numbers that several states have.
pub(crate) type SharedKeyNumbers = Arc<Mutex<KeyNumbers>>;

/// Numbers the distinct keys that come along, from 0. Forgets all of them when told to, which must be when no number is in
/// use any more: so it is bounded by the keys between two snapshots, not by all there ever were.
pub(crate) struct KeyNumbers {
    schema: SchemaRef,
    /// From the first key on.
    table: Option<Box<dyn GroupValues>>,
    /// The keys in the order of their numbers, if they are a text each.
    sequence: Option<KeySequence>,
    /// The keys in the order of their numbers, in parts; if they are something else.
    parts: Vec<Vec<ArrayRef>>,
    /// The newest answers, until [`forget_answers`](Self::forget_answers). They hold on to the columns, so none can take another's place in memory.
    answers: VecDeque<(Vec<ArrayRef>, UInt32Array)>,
    /// The keys of numbers, as they were asked for.
    put_together: VecDeque<(UInt32Array, Vec<ArrayRef>)>,
    in_order: VecDeque<(UInt32Array, SortedKeys)>,
    scratch: Vec<usize>,
}

/// Keys in order.
#[derive(Debug, Clone)]
pub(crate) struct SortedKeys {
    /// Where each was among those that were asked for.
    pub(crate) order: UInt32Array,
    pub(crate) keys: Vec<ArrayRef>,
}

/// The groups of one window, found by the numbers of their keys.
#[derive(Debug, Default)]
pub(crate) struct NumberedGroups {
    /// Number of a key → its group, plus one; 0 if it has none.
    group_of: Vec<u32>,
    /// Group → number of its key.
    numbers: Vec<u32>,
}

impl NumberedGroups {
    /// The group of each row; a key without one gets the next.
    pub(crate) fn find(&mut self, numbers: &[u32], groups: &mut Vec<usize>) {
        groups.clear();
        groups.reserve(numbers.len());
        if let Some(&highest) = numbers.iter().max()
            && self.group_of.len() <= highest as usize
        {
            self.group_of.resize(highest as usize + 1, 0);
        }
        for &number in numbers {
            let group = &mut self.group_of[number as usize];
            if *group == 0 {
                self.numbers.push(number);
                *group = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
            }
            groups.push(*group as usize - 1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.group_of.capacity() + self.numbers.capacity()) * size_of::<u32>()
    }

    /// The numbers of their keys, in the order of the groups.
    pub(crate) fn into_numbers(self) -> UInt32Array {
        UInt32Array::from(self.numbers)
    }
}

impl fmt::Debug for KeyNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyNumbers").field("schema", &self.schema).field("keys", &self.len()).finish()
    }
}

impl KeyNumbers {
    /// For keys of these types.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        Self {
            schema: Arc::clone(schema),
            table: None,
            sequence: (types == [&DataType::Utf8]).then(KeySequence::default),
            parts: Vec::new(),
            answers: VecDeque::new(),
            put_together: VecDeque::new(),
            in_order: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// How many keys have a number.
    pub(crate) fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    /// Whether keys of this schema can be numbered here: names do not matter.
    pub(crate) fn fits(&self, schema: &SchemaRef) -> bool {
        let types =
            |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        types(&self.schema) == types(schema)
    }

    /// The number of each key.
    pub(crate) fn of(&mut self, keys: &[ArrayRef]) -> Result<UInt32Array> {
        let same = |known: &[ArrayRef]| known.iter().zip(keys).all(|(a, b)| a.to_data().ptr_eq(&b.to_data()));
        if let Some((_, numbers)) = self.answers.iter().find(|(known, _)| same(known)) {
            return Ok(numbers.clone());
        }
        let mut numbers = Vec::with_capacity(keys.first().map_or(0, |column| column.len()));
        match (self.sequence.is_some(), keys) {
            (true, [column]) => self.follow(column.as_string::<i32>(), &mut numbers)?,
            _ => self.look_up(keys, &mut numbers)?,
        }
        let numbers = UInt32Array::from(numbers);
        keep_newest(&mut self.answers, (keys.to_vec(), numbers.clone()));
        Ok(numbers)
    }

    /// As [`look_up`](Self::look_up), of keys that come in an order that is known.
    fn follow(&mut self, keys: &StringArray, numbers: &mut Vec<u32>) -> Result<()> {
        let (mut row, mut look_ups) = (0, LookUps::new());
        while let Some(sequence) = &mut self.sequence {
            let from = row;
            row = sequence.guess(keys, from, numbers);
            let rows = look_ups.next(row - from).min(keys.len() - row);
            if rows == 0 {
                break;
            }
            let looked_up = numbers.len();
            self.look_up(&[Arc::new(keys.slice(row, rows))], numbers)?;
            if let Some(sequence) = &mut self.sequence {
                numbers[looked_up..].iter().for_each(|number| sequence.note(*number));
            }
            row += rows;
        }
        Ok(())
    }

    /// Adds the number of each key; those that are new get the next.
    fn look_up(&mut self, keys: &[ArrayRef], numbers: &mut Vec<u32>) -> Result<()> {
        let known = self.len();
        let table = match &mut self.table {
            Some(table) => table,
            None => self.table.insert(new_group_values(Arc::clone(&self.schema), &GroupOrdering::None)?),
        };
        self.scratch.clear();
        table.intern(keys, &mut self.scratch)?;
        let fresh = table.len() - known;
        u32::try_from(table.len()).map_err(|_| exec_datafusion_err!("more than 4 billion keys between snapshots"))?;
        if fresh > 0 {
            let mut first = vec![u32::MAX; fresh];
            for (row, &number) in self.scratch.iter().enumerate() {
                if let Some(first) = number.checked_sub(known).map(|at| &mut first[at])
                    && *first == u32::MAX
                {
                    *first = u32::try_from(row).unwrap_or(u32::MAX);
                }
            }
            match (&mut self.sequence, keys) {
                (Some(sequence), [column]) => {
                    let texts = column.as_string::<i32>();
                    let text = |row: &u32| texts.is_valid(*row as usize).then(|| texts.value(*row as usize));
                    first.iter().for_each(|row| sequence.push(text(row)));
                }
                // Zeros of either sign are one key, which tables give back as the positive one.
                _ => {
                    let first = super::take_all(keys, &UInt32Array::from(first))?;
                    self.parts.push(first.iter().map(normalize_float_zero).collect());
                }
            }
        }
        numbers.extend(self.scratch.iter().map(|&number| u32::try_from(number).unwrap_or(u32::MAX)));
        Ok(())
    }

    /// Nobody is going to ask the same again.
    pub(crate) fn forget_answers(&mut self) {
        self.answers.clear();
        self.put_together.clear();
        self.in_order.clear();
    }

    /// The keys of these numbers.
    pub(crate) fn keys(&mut self, numbers: &UInt32Array) -> Result<Vec<ArrayRef>> {
        if let Some((_, keys)) = self.put_together.iter().find(|(known, _)| known.values() == numbers.values()) {
            return Ok(keys.clone());
        }
        let keys = self.put_together(numbers)?;
        keep_newest(&mut self.put_together, (numbers.clone(), keys.clone()));
        Ok(keys)
    }

    /// The keys of these numbers in their own order.
    pub(crate) fn sorted(&mut self, numbers: &UInt32Array) -> Result<SortedKeys> {
        if let Some((_, sorted)) = self.in_order.iter().find(|(known, _)| known.values() == numbers.values()) {
            return Ok(sorted.clone());
        }
        let keys = self.put_together(numbers)?;
        let order = key_order(&keys)?;
        let sorted = SortedKeys { keys: super::take_all(&keys, &order)?, order };
        keep_newest(&mut self.in_order, (numbers.clone(), sorted.clone()));
        Ok(sorted)
    }

    fn put_together(&mut self, numbers: &UInt32Array) -> Result<Vec<ArrayRef>> {
        if let Some(sequence) = &self.sequence {
            return Ok(vec![sequence.texts(numbers)]);
        }
        if self.parts.len() > 1 {
            let column = |at: usize| {
                let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part[at].as_ref()).collect();
                concat(&parts)
            };
            let whole = (0..self.schema.fields().len()).map(column).collect::<std::result::Result<_, _>>()?;
            self.parts = vec![whole];
        }
        let Some(whole) = self.parts.first() else { return Ok(Vec::new()) };
        Ok(whole.iter().map(|column| take(column, numbers, None)).collect::<std::result::Result<_, _>>()?)
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        *self = self.anew();
    }

    /// For keys of the same types, without any.
    pub(crate) fn anew(&self) -> Self {
        Self::new(&self.schema)
    }

    /// Memory held, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let parts = self.parts.iter().flatten().map(|column| column.get_array_memory_size()).sum::<usize>();
        let sequence = self.sequence.as_ref().map_or(0, KeySequence::bytes);
        self.table.as_ref().map_or(0, |table| table.size()) + parts + sequence
    }
}

fn keep_newest<T>(answers: &mut VecDeque<T>, newest: T) {
    if answers.len() == ANSWERS_MAX {
        answers.pop_front();
    }
    answers.push_back(newest);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    /// Rounds of 300 keys, in one order and then in others, some missing, some again, some without a value, and new ones.
    fn rounds() -> Vec<Vec<Option<String>>> {
        let mut random = 7_u64;
        let mut below = move |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut order: Vec<u64> = (0..300).collect();
        let mut rounds = Vec::new();
        for round in 0..40 {
            if round % 5 == 4 {
                (1..order.len()).for_each(|at| order.swap(at, usize::try_from(below(at as u64 + 1)).expect("small")));
            }
            let mut keys = Vec::new();
            for key in &order {
                match below(20) {
                    0 => {}
                    1 => keys.extend([Some(format!("m{key}")), Some(format!("m{key}"))]),
                    2 => keys.extend([None, Some(String::new()), Some(format!("n{}", below(1_000)))]),
                    _ => keys.push(Some(format!("m{key}"))),
                }
            }
            rounds.push(keys);
        }
        rounds
    }

    #[test]
    fn a_key_has_the_number_that_it_got_first_in_whatever_order_keys_come() {
        let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, true)]));
        let mut numbers = KeyNumbers::new(&schema);
        let mut expected: HashMap<Option<String>, u32> = HashMap::new();
        for round in rounds() {
            for keys in round.chunks(70) {
                let column: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
                let given = numbers.of(&[Arc::clone(&column)]).expect("numbered");
                let next = |key: &Option<String>| {
                    let fresh = u32::try_from(expected.len()).expect("few");
                    *expected.entry(key.clone()).or_insert(fresh)
                };
                assert_eq!(given.values().to_vec(), keys.iter().map(next).collect::<Vec<_>>());
                assert_eq!(numbers.keys(&given).expect("keys")[0].as_ref(), column.as_ref());
                let sorted = numbers.sorted(&given).expect("sorted");
                let mut in_order = keys.to_vec();
                in_order.sort();
                assert_eq!(sorted.keys[0].as_ref(), &StringArray::from(in_order) as &dyn Array);
            }
            numbers.forget_answers();
        }
        assert_eq!(numbers.len(), expected.len());
    }

    #[test]
    fn keys_in_a_known_order_are_not_looked_up() {
        let mut sequence = KeySequence::default();
        let keys: Vec<String> = (0..100).map(|key| format!("m{key}")).collect();
        for (number, key) in (0..).zip(&keys) {
            sequence.push(Some(key));
            sequence.note(number);
        }
        sequence.note(0);
        let mut numbers = Vec::new();
        assert_eq!(sequence.guess(&StringArray::from(keys), 1, &mut numbers), 100);
        assert_eq!(numbers, (1..100).collect::<Vec<u32>>());
        let other = StringArray::from(vec!["m0", "m1", "m2", "m9", "m10"]);
        numbers.clear();
        assert_eq!(sequence.guess(&other, 0, &mut numbers), 3, "m0 follows m99 since the round before");
        assert_eq!(numbers, [0, 1, 2]);
    }
}
