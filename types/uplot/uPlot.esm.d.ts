// The chart library under the address at which the page loads it: static files serve it beside static/js.
export { default } from "uplot";
