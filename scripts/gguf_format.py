"""GGUF files (version 3) written with the standard library alone: keys, tensors, and the formats in
which tensors are stored. Used by scripts/convert_to_gguf.py and by the tests.

A tensor is (name, shape with rows first, format, function that returns its bytes): the bytes are made
one tensor at a time, so a large model needs no more memory than its largest tensor."""
import array
import struct

ALIGNMENT = 32
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q",
         F64: "d"}
# name: (number in the format, elements of a block, its bytes)
FORMATS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144),
           "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2)}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, kind, value, element=None):
    """One key with its value; of an array, `element` is the kind of its elements."""
    head = string(name) + struct.pack("<I", kind)
    if kind == STRING:
        return head + string(value)
    if kind != ARRAY:
        return head + struct.pack("<" + CODES[kind], value)
    head += struct.pack("<IQ", element, len(value))
    if element == STRING:
        return head + b"".join(map(string, value))
    return head + struct.pack(f"<{len(value)}{CODES[element]}", *value)


def padding(size):
    return bytes(-size % ALIGNMENT)


def num_bytes(shape, form):
    _, block, size = FORMATS[form]
    if shape[-1] % block:
        raise ValueError(f"rows of {shape[-1]} elements are no multiple of a block of {form}")
    elements = 1
    for n in shape:
        elements *= n
    return elements // block * size


def write(path, keys, tensors):
    infos, offset = [], 0
    for name, shape, form, _ in tensors:
        infos.append(string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape),
                                                FORMATS[form][0], offset))
        size = num_bytes(shape, form)
        offset += size + len(padding(size))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(infos)
    with open(path, "wb") as file:
        file.write(head + padding(len(head)))
        for name, shape, form, data in tensors:
            stored = data()
            if len(stored) != num_bytes(shape, form):
                raise ValueError(f"{name}: {len(stored)} bytes, its shape needs {num_bytes(shape, form)}")
            file.write(stored + padding(len(stored)))


def to_floats(data, form):
    """Stored F32, F16 or BF16 as an array of floats."""
    if form == "F32":
        values = array.array("f")
        values.frombytes(data)
        return values
    if form == "BF16":  # the upper half of a float
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return to_floats(bytes(wide), "F32")
    return array.array("f", struct.unpack(f"<{len(data) // 2}e", data))


def to_q8_0(values):
    """Blocks of 32: a half-precision scale, 32 signed bytes."""
    out = bytearray()
    for at in range(0, len(values), 32):
        block = values[at:at + 32]
        scale = max(max(block), -min(block)) / 127
        inverse = 1 / scale if scale else 0.0
        out += struct.pack("<e32b", scale, *[round(value * inverse) for value in block])
    return bytes(out)


def to_q4_0(values):
    """Blocks of 32: a half-precision scale, 16 bytes; element i low, i + 16 high, less 8."""
    out = bytearray()
    for at in range(0, len(values), 32):
        block = values[at:at + 32]
        scale = max(block, key=abs) / -8
        inverse = 1 / scale if scale else 0.0
        levels = [min(15, int(value * inverse + 8.5)) for value in block]
        out += struct.pack("<e16B", scale, *[levels[i] | levels[i + 16] << 4 for i in range(16)])
    return bytes(out)


def convert(data, source, form):
    """The bytes of a tensor in another format: F32, F16, Q8_0 or Q4_0 (equal formats pass)."""
    if source == form:
        return data
    values = to_floats(data, source)
    if form == "F32":
        return values.tobytes()
    if form == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    return {"Q8_0": to_q8_0, "Q4_0": to_q4_0}[form](values)
