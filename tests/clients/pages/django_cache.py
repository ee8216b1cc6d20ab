"""docs/clients/django.md: the cache, and sessions in it. See page.py."""

import django
from django.conf import settings
from page import Report, block

given = {name: value for name, value in block().items() if name.isupper()}
settings.configure(USE_TZ=True, **given)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import cache

report = Report(f"Django {django.__version__}")
session = SessionStore()
session["round"] = -1
session.save()


def work(number: int) -> dict:
    key, value = f"page:django:{number}", f"value {number}"
    cache.set(key, value, 600)
    report.expect(cache.get(key), value)
    again = SessionStore(session_key=session.session_key)
    report.expect(again["round"], number - 1)
    again["round"] = number
    again.save()
    return {key: value}


assert settings.SESSION_ENGINE == "django.contrib.sessions.backends.cache"
report.rounds(work)
report.print(cache.get)
