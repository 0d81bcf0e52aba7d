//! A bounded list of values by key, which removes the least recently used one that is idle.
//!
//! Not for: values that expire ([`crate::auth::verified_tokens`]).

use uuid::Uuid;

/// Values by key, the least recently used first.
#[derive(Debug)]
pub struct LeastRecentlyUsed<T> {
    values: Vec<(Uuid, T)>,
    len_max: usize,
}

/// The list has its most values, and none of them is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<T: Clone> LeastRecentlyUsed<T> {
    /// An empty list of at most so many values.
    #[must_use]
    pub const fn new(len_max: usize) -> Self {
        Self { values: Vec::new(), len_max }
    }

    /// Finds the value of a key, or inserts a new one, in the place of an idle one where the list has its most values.
    ///
    /// # Errors
    /// [`Full`].
    pub fn find_or_insert(
        &mut self,
        key: Uuid,
        is_idle: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Result<T, Full> {
        let found = self.values.iter().position(|(known, _)| *known == key);
        let value = match found {
            Some(at) => self.values.remove(at).1,
            None => {
                if self.values.len() >= self.len_max {
                    let idle = self.values.iter().position(|(_, value)| is_idle(value)).ok_or(Full)?;
                    self.values.remove(idle);
                }
                make()
            }
        };
        self.values.push((key, value.clone()));
        Ok(value)
    }

    /// The value of a key; it does not count as used.
    #[must_use]
    pub fn find(&self, key: Uuid) -> Option<&T> {
        self.values.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: u32 = 100;

    fn list() -> LeastRecentlyUsed<u32> {
        let mut list = LeastRecentlyUsed::new(3);
        for (key, value) in [(1, 1), (2, 2), (3, 3)] {
            assert_eq!(use_key(&mut list, key, value), Ok(value));
        }
        list
    }

    fn use_key(list: &mut LeastRecentlyUsed<u32>, key: u128, value: u32) -> Result<u32, Full> {
        list.find_or_insert(Uuid::from_u128(key), |value| *value < BUSY, || value)
    }

    fn values(list: &LeastRecentlyUsed<u32>) -> Vec<u32> {
        list.values().copied().collect()
    }

    #[test]
    fn a_value_is_found_and_becomes_the_most_recently_used() {
        let mut list = list();
        assert_eq!(use_key(&mut list, 1, 9), Ok(1));
        assert_eq!(values(&list), [2, 3, 1]);
        assert_eq!(list.find(Uuid::from_u128(2)), Some(&2));
        assert_eq!(list.find(Uuid::from_u128(4)), None);
        assert_eq!(values(&list), [2, 3, 1]);
    }

    #[test]
    fn a_full_list_removes_the_least_recently_used() {
        let mut list = list();
        assert_eq!(use_key(&mut list, 4, 4), Ok(4));
        assert_eq!(values(&list), [2, 3, 4]);
    }

    #[test]
    fn a_busy_value_is_never_removed() {
        let mut list = LeastRecentlyUsed::new(2);
        assert_eq!(use_key(&mut list, 1, BUSY), Ok(BUSY));
        assert_eq!(use_key(&mut list, 2, 2), Ok(2));
        assert_eq!(use_key(&mut list, 3, BUSY), Ok(BUSY));
        assert_eq!(use_key(&mut list, 4, 4), Err(Full));
        assert_eq!(values(&list), [BUSY, BUSY]);
        assert_eq!(use_key(&mut list, 1, 1), Ok(BUSY));
    }
}
