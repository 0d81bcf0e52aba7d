//! One small sort for the lists of the check: that of the standard library has 3 to 5 KB of the module for each type.

/// Sorts in ascending order (a Shell sort: its gaps shrink by 2.2).
pub(super) fn sort(list: &mut [u64]) {
    let mut gap = list.len();
    while gap > 1 {
        gap = gap.saturating_mul(5).checked_div(11).unwrap_or_default().max(1);
        for end in gap..list.len() {
            let mut at = end;
            while let Some(before) = at.checked_sub(gap)
                && list.get(before) > list.get(at)
            {
                list.swap(before, at);
                at = before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_the_standard_library(mut list in prop::collection::vec(0_u64..500, 0..300)) {
            let mut expected = list.clone();
            expected.sort_unstable();
            sort(&mut list);
            prop_assert_eq!(list, expected);
        }
    }
}
