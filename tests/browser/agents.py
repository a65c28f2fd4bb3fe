"""How real browsers introduce themselves."""

_APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
_BLINK = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0"

FIREFOX_LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
FIREFOX_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 14.6; rv:142.0) Gecko/20100101 Firefox/142.0"
CHROME_WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_BLINK} Safari/537.36"
EDGE_WINDOWS = f"{CHROME_WINDOWS} Edg/141.0.0.0"
SAFARI_MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_APPLE} Version/18.5 Safari/605.1.15"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_APPLE} Version/18.5 Mobile/15E148 Safari/604.1"
IPAD = f"Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) {_APPLE} Version/17.6 Mobile/15E148 Safari/604.1"
PIXEL = f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {_BLINK} Mobile Safari/537.36"
