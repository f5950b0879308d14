//! RESP as a client reads it, the naive way: one value after the other.

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(String),
    /// In the words of RESP2.
    NullBulk,
    Null,
    Array(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<Value>),
}

impl Value {
    /// The first value, and how many bytes it takes; nothing if it is not all there.
    ///
    /// # Panics
    /// If these bytes are the beginning of no value.
    pub fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
        let line_end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let line = String::from_utf8(bytes[1..line_end].to_vec()).expect("a line of text");
        let start = line_end + 2;
        let number = || line.parse::<i64>().expect("a number");
        Some(match bytes[0] {
            b'+' => (Value::Simple(line), start),
            b'-' => (Value::Error(line), start),
            b':' => (Value::Integer(number()), start),
            b'_' => (Value::Null, start),
            b'$' if number() == -1 => (Value::NullBulk, start),
            b'$' => {
                let size = number() as usize;
                let text = bytes.get(start..start + size)?.to_vec();
                let end = bytes.get(start + size..start + size + 2)?;
                assert_eq!(end, b"\r\n", "a bulk string of another size");
                let text = String::from_utf8(text).expect("nobody sends anything but text");
                (Value::Bulk(text), start + size + 2)
            }
            b'*' => {
                let (values, end) = Value::parse_many(bytes, start, number())?;
                (Value::Array(values), end)
            }
            b'>' => {
                let (values, end) = Value::parse_many(bytes, start, number())?;
                (Value::Push(values), end)
            }
            b'%' => {
                let (values, end) = Value::parse_many(bytes, start, 2 * number())?;
                (Value::Map(values), end)
            }
            other => panic!("no value begins with {:?}", other as char),
        })
    }

    fn parse_many(bytes: &[u8], mut at: usize, count: i64) -> Option<(Vec<Value>, usize)> {
        let mut values = Vec::new();
        for _ in 0..count {
            let (value, size) = Value::parse(&bytes[at..])?;
            values.push(value);
            at += size;
        }
        Some((values, at))
    }

    /// A text as an element.
    pub fn text(text: &str) -> Value {
        Value::Bulk(text.to_owned())
    }

    /// These elements as a client of this version gets what it did not ask for.
    pub fn push(is_three: bool, values: Vec<Value>) -> Value {
        if is_three {
            Value::Push(values)
        } else {
            Value::Array(values)
        }
    }

    /// The texts of an array or push that has nothing else.
    pub fn texts(&self) -> Option<Vec<&str>> {
        let (Value::Array(values) | Value::Push(values)) = self else {
            return None;
        };
        let texts = values.iter().map(|value| match value {
            Value::Bulk(text) => Some(&text[..]),
            _ => None,
        });
        texts.collect()
    }
}
