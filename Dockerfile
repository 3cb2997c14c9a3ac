# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt

FROM node:20-bookworm-slim AS page
WORKDIR /page
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --create-home streamsocial
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=page /page/node_modules /app/node_modules
COPY manage.py ./
COPY streamsocial streamsocial
COPY analytics analytics
COPY offsets offsets
COPY templates templates
COPY static static
RUN python manage.py collectstatic --noinput
USER 10001
EXPOSE 8000
CMD ["daphne", "-b", "0.0.0.0", "-p", "8000", "--proxy-headers", "streamsocial.asgi:application"]
