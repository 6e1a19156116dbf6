"""Lists the matrix products that XLA:CPU computes with its library, read from a compiled program."""

import re

import jax


def library_products(function, *operands) -> list[str]:
    """The types of the products, 'bf16 bf16 -> f32', that a compiled program computes with XLA:CPU's library."""
    text = jax.jit(function).lower(*operands).compile().as_text()
    types = dict(re.findall(r"%([\w.-]+) = (\w+)\[", text))
    called = re.findall(r"calls=%([\w.-]+),.*__ynn_fusion", text)
    bodies = [re.search(rf"^%{re.escape(name)} .*?^}}", text, re.DOTALL | re.MULTILINE)[0] for name in called]
    dots = re.findall(r"= (\w+)\[[^=]* dot\(%([\w.-]+), %([\w.-]+)\)", "\n".join(bodies))
    return [f"{types[a]} {types[b]} -> {result}" for result, a, b in dots]
