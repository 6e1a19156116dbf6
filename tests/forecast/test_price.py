import pytest

from gptjax.config import ConfigError
from gptjax.forecast.price import parse_price


@pytest.mark.parametrize("text", ["2.5 USD", "$2.50", "2.5usd/h", "2.5 USD per GPU hour", "$2.5 / hour"])
def test_a_price_is_per_device_and_hour(text):
    price = parse_price(text, "--price")
    assert (price.amount, price.currency) == (2.5, "USD")
    assert price.of(devices=8, seconds=1800) == pytest.approx(10.0)


@pytest.mark.parametrize("text", ["2.5", "USD", "", "-1 USD", "0 EUR", "$2 EUR", "two USD", "nan USD"])
def test_a_price_without_currency_or_amount_is_refused(text):
    with pytest.raises(ConfigError, match="--price="):
        parse_price(text, "--price")
