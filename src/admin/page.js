"use strict";
(() => {
  const every = 2000;
  const again = async () => {
    try {
      const answer = await fetch("/main", { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const before = document.querySelector("main");
      const after = page.querySelector("main");
      const open = [...before.querySelectorAll("details")].map((d) => d.open);
      after.querySelectorAll("details").forEach((d, n) => { d.open = open[n] || false; });
      before.replaceWith(after);
      document.title = after.dataset.title;
    } catch {
      document.getElementById("stale").hidden = false;
    }
    setTimeout(again, every);
  };
  setTimeout(again, every);
})();
