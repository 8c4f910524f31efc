// Keeps the page fresh. Without it the page refreshes itself every ten seconds; buttons never
// need it.
(() => {
  const wait = 2000;
  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/now", { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["now", "rest"]) {
        const old = document.getElementById(id), next = fresh.getElementById(id);
        if (old && next && old.outerHTML !== next.outerHTML) old.replaceWith(document.importNode(next, true));
      }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
  }
  setInterval(look, wait);
  document.addEventListener("visibilitychange", look);
})();
