"""The cost of devices: parses prices as users write them."""

from __future__ import annotations

import dataclasses
import re

from gptjax.config import ConfigError

_SYMBOLS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_PRICE = re.compile(
    r"\s*(?P<symbol>[$€£¥₹])?\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<code>[A-Za-z]{3})?"
    r"\s*(?:(?:per|/)\s*(?:(?:GPU|TPU|device|chip|card)[\s-]*)?(?:hour|hr|h))?\s*",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Price:
    """A price per device and hour. currency: three letters."""

    amount: float
    currency: str

    def of(self, devices: int, seconds: float) -> float:
        return self.amount * devices * seconds / 3600

    def text(self, devices: int, seconds: float) -> str:
        """'12.50 USD'; small amounts have two digits that are not zero"""
        amount = self.of(devices, seconds)
        return f"{amount:,.2f} {self.currency}" if amount >= 0.1 else f"{amount:.2g} {self.currency}"


def parse_price(text: str, name: str) -> Price:
    """'2.5 USD', '$2.50', '2 EUR per GPU hour' → the price. name: the flag, for messages.

    Raises:
      ConfigError: the text is not a number with a currency, or not above 0.
    """
    found = _PRICE.fullmatch(text)
    code = found and (_SYMBOLS.get(found["symbol"] or "") or (found["code"] or "").upper())
    if not found or not code or (found["symbol"] and found["code"]):
        raise ConfigError(
            f"{name}={text!r}: expected a price per device and hour with its currency, such as '2.50 USD' or '$2.50'"
        )
    if not float(found["amount"]) > 0:
        raise ConfigError(f"{name}={text!r}: must be above 0")
    return Price(float(found["amount"]), code)
