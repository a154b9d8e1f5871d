//! Rows of an answer that many readers get at once.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// Rows that are made once and shared: a clone costs a count, and what they are written as for readers is written once.
///
/// In the binary form they are the plain list.
#[derive(Clone, Debug)]
pub struct Rows<T>(Arc<Made<T>>);

#[derive(Debug)]
struct Made<T> {
    rows: Vec<T>,
    written: OnceLock<Bytes>,
}

/// Which rows they were, without holding them: for who made something of rows and wants to know whether it is still of the same.
#[derive(Clone, Debug)]
pub struct RowsMark<T>(Weak<Made<T>>);

impl<T> Rows<T> {
    /// A mark of exactly these rows, made at that one time.
    pub fn mark(&self) -> RowsMark<T> {
        RowsMark(Arc::downgrade(&self.0))
    }

    /// Whether the mark is of these rows.
    pub fn has(&self, mark: &RowsMark<T>) -> bool {
        // The mark keeps the place from being used again, so an equal place is the same rows.
        std::ptr::eq(Arc::as_ptr(&self.0), mark.0.as_ptr())
    }

    /// What the rows are written as: by `write` for the first who asks, the same bytes for everybody after. All callers
    /// must write the same form.
    ///
    /// # Errors
    /// As `write`; then the next one tries again.
    pub fn written<E>(&self, write: impl FnOnce(&[T]) -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        if let Some(bytes) = self.0.written.get() {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(write(&self.0.rows)?);
        Ok(self.0.written.get_or_init(|| bytes).clone())
    }
}

impl<T: Clone> Rows<T> {
    /// The rows, to change them; a copy when others share them.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        let made = Arc::make_mut(&mut self.0);
        made.written = OnceLock::new();
        &mut made.rows
    }
}

impl<T: Clone> Clone for Made<T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), written: OnceLock::new() }
    }
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(rows: Vec<T>) -> Self {
        Self(Arc::new(Made { rows, written: OnceLock::new() }))
    }
}

impl<T> Deref for Rows<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0.rows
    }
}

impl<T: PartialEq> PartialEq for Rows<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.rows == other.0.rows
    }
}

impl<T: Eq> Eq for Rows<T> {}

impl<C, T: Encode<C>> Encode<C> for Rows<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        to: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.rows.encode(to, context)
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Rows<T> {
    fn decode(from: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        Vec::decode(from, context).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(rows: &[u8]) -> Result<Vec<u8>, String> {
        if rows.is_empty() { Err("nothing".to_owned()) } else { Ok(rows.to_vec()) }
    }

    #[test]
    fn a_mark_is_of_the_rows_it_was_made_of_and_not_of_equal_ones() {
        let rows = Rows::from(vec![1, 2]);
        let mark = rows.mark();
        assert!(rows.clone().has(&mark));
        assert!(!Rows::from(vec![1, 2]).has(&mark));
        drop(rows);
        assert!(!Rows::from(vec![1, 2]).has(&mark), "a place was used again");
        let mut changed = Rows::from(vec![1]);
        let mark = changed.mark();
        changed.to_mut().push(2);
        assert!(!changed.has(&mark), "changed rows are others");
    }

    #[test]
    fn shared_rows_are_written_once_and_anew_after_a_change() {
        let mut rows = Rows::from(vec![1, 2]);
        let shared = rows.clone();
        assert_eq!(rows.written(write).unwrap(), [1, 2][..]);
        assert_eq!(shared.written(|_| Err("it was written before")).unwrap(), [1, 2][..]);
        rows.to_mut().push(3);
        assert_eq!(rows.written(write).unwrap(), [1, 2, 3][..]);
        assert_eq!(*shared, [1, 2]);
        let mut alone = rows.clone();
        drop(rows);
        alone.to_mut().clear();
        assert_eq!(alone.written(write).unwrap_err(), "nothing");
    }
}
