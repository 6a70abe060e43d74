//! Mutates JSON by its structure: bytes at random seldom leave a report that is one.

/// What may stand between two structural characters, or be a member with the comma behind it.
const TEXTS: [&str; 20] = [
    "null",
    "true",
    "0",
    "-1.5e3",
    "1e999",
    "\"\"",
    "\"a\\u0041\"",
    "{}",
    "[]",
    "[[0]]",
    "\"t\"",
    "\"error\"",
    "\"name\"",
    "\"hosts\"",
    "\"history\"",
    "\"clientId\"",
    "\"timestamp\":\"\",",
    "\"receivedAt\":0,",
    "\"geo\":{},",
    "\"latency\":null,",
];

/// Puts one of the texts, or a piece of `data[..len]` between two structural characters, behind another
/// one, in place of what is there or not. Returns the new length; `None`: there is no room, or no
/// structure.
pub(crate) fn splice(data: &mut [u8], len: usize, seed: u32) -> Option<usize> {
    let mut random = u64::from(seed);
    let mut below = |end: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) as usize % end
    };
    let is_structural = |byte: &u8| b"{}[],:".contains(byte);
    let places = (0..len).filter(|at| is_structural(&data[*at]));
    let places: Vec<usize> = places.map(|at| at + 1).collect();
    // Two for a member with its comma.
    let mut piece = |most: usize| {
        let begin = below(places.len().checked_sub(most)?.max(1));
        let end = places.len().checked_sub(1)?.min(begin + below(most + 1));
        Some(places[begin]..places[end])
    };
    let (source, target) = (piece(4)?, piece(1)?);
    let new = match below(3) {
        0 => TEXTS[below(TEXTS.len())].as_bytes().to_vec(),
        _ => data[source].to_vec(),
    };
    // Without the structural character at the end of what goes.
    let target = target.start..target.end.saturating_sub(1).max(target.start);
    let new_len = len - target.len() + new.len();
    if new_len > data.len() {
        return None;
    }
    let begin = target.start;
    data.copy_within(target.end..len, begin + new.len());
    data[begin..begin + new.len()].copy_from_slice(&new);
    Some(new_len)
}
