// Where the reader is in the conversation: at the bottom the newest words stay in view, elsewhere
// nothing moves.

const NEAR = 8; // pixels from the bottom that still count as it

export function follow(scroller, content, newest) {
  let following = true, before = 0;

  const isAtBottom = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight <= NEAR;

  function toBottom() {
    following = true;
    scroller.scrollTop = scroller.scrollHeight;
    newest.hidden = true;
  }

  scroller.addEventListener("scroll", () => {
    const up = scroller.scrollTop < before;
    following = isAtBottom() || (following && !up);
    before = scroller.scrollTop;
    newest.hidden = following;
  });
  new ResizeObserver(() => {
    if (following) toBottom();
    else newest.hidden = isAtBottom();
  }).observe(content);
  new ResizeObserver(() => following && toBottom()).observe(scroller);
  newest.addEventListener("click", toBottom);
  return { toBottom };
}
